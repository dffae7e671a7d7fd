"""Tensors in GGML's storage types, the operation table, GGUF files, the inference engine.

for users     api
tensors       dtypes (THE table of storage types), tensor, dlpack, text
quantization  quantization, codecs, kquants, conversion
files         gguf
operations    ops (THE operation table), single, catalog, matrices, packed, cache
networks      graph, folding, constants, engine, plan
weights       derived, mapped
machine code  kernels
"""
