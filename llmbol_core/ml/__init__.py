"""Tensors in GGML's storage types, the operation table, GGUF files, the inference engine."""
