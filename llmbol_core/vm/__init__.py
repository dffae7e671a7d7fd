"""Inferno's Dis virtual machine: object files, assembler, verifier, interpreter."""
