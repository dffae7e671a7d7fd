"""Torch7-style modules, criterions and optimizers; models from YAML specs."""
