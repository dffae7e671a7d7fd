"""GGUF files: metadata and tensors, read in place from a mapped file and written as a stream.

    "GGUF"  version u32 (2, 3)  tensor count u64  key count u64
    keys       name string, value type u32, value
    tensors    name string, axes u32, lengths u64 (innermost first), type u32, offset u64
    padding    to a multiple of general.alignment, 32 if the key is absent
    data       each tensor padded to the alignment, in the order of the list, without gaps

All numbers are little-endian; a string is a u64 length and UTF-8 bytes; an array is an element type
u32, a count u64 and the elements. A model may lie in several files (``shards``). The reader trusts
nothing: each count and length is held against the bytes that are left before anything is allocated,
and what ggml's own reader refuses (gaps, duplicates, arrays of arrays, rows that are no whole
blocks) is refused here.
"""

from __future__ import annotations

from llmbol_core.ml.gguf.format import GgufFile, StringArray, Value
from llmbol_core.ml.gguf.reader import read, read_buffer
from llmbol_core.ml.gguf.shards import shard_paths
from llmbol_core.ml.gguf.splitting import write_shards
from llmbol_core.ml.gguf.writer import Deferred, write, write_stream

__all__ = [
    "Deferred",
    "GgufFile",
    "StringArray",
    "Value",
    "read",
    "read_buffer",
    "shard_paths",
    "write",
    "write_shards",
    "write_stream",
]
