"""ggml as a peer: its CPU backend through ctypes, from the shared libraries of a build of it.

``LLMBOL_GGML`` names the directory with ``libggml.so``, ``libggml-base.so`` and ``libggml-cpu.so``,
such as ``build/bin`` of the llama.cpp in llama-cpp-python's source archive, built Release.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import c_bool, c_int, c_int64, c_size_t, c_void_p
from typing import Any

import numpy as np

from llmbol_core.ml.tensor import Tensor

_REPACK = "_Z35ggml_backend_cpu_repack_buffer_typev"


class _Parameters(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("buffer", c_void_p), ("no_alloc", c_bool)]


class Ggml:
    """ggml's CPU backend."""

    def __init__(self, directory: str) -> None:
        base, cpu = (
            ctypes.CDLL(os.path.join(directory, f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
            for name in ("ggml-base", "ggml-cpu")
        )
        self._base, self._cpu = base, cpu
        for library, name, result, *parameters in (
            (base, "ggml_init", c_void_p, _Parameters),
            (base, "ggml_new_tensor_2d", c_void_p, c_void_p, c_int, c_int64, c_int64),
            (base, "ggml_mul_mat", c_void_p, c_void_p, c_void_p, c_void_p),
            (base, "ggml_new_graph", c_void_p, c_void_p),
            (base, "ggml_build_forward_expand", None, c_void_p, c_void_p),
            (base, "ggml_backend_alloc_ctx_tensors", c_void_p, c_void_p, c_void_p),
            (base, "ggml_backend_alloc_ctx_tensors_from_buft", c_void_p, c_void_p, c_void_p),
            (base, "ggml_backend_tensor_set", None, c_void_p, c_void_p, c_size_t, c_size_t),
            (base, "ggml_backend_graph_compute", c_int, c_void_p, c_void_p),
            (cpu, "ggml_backend_cpu_init", c_void_p),
            (cpu, "ggml_backend_cpu_set_n_threads", None, c_void_p, c_int),
            (cpu, _REPACK, c_void_p),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, parameters
        self._backend = cpu.ggml_backend_cpu_init()

    def context(self) -> Any:
        """Return a place for tensors' descriptions."""
        return self._base.ggml_init(_Parameters(1 << 20, None, True))

    def row_function(self, name: str) -> Callable[..., Any]:
        """Return a function that converts a run of weights: (from, to, count)."""
        library = self._cpu if name == "quantize_row_q8_0" else self._base
        function = getattr(library, name)
        function.restype, function.argtypes = None, (c_void_p, c_void_p, c_int64)
        return function  # type: ignore[no-any-return]

    def product(
        self, weights: list[Tensor], x: np.ndarray[Any, Any], threads: int, repack: bool = True
    ) -> Callable[[], None]:
        """Return a function that multiplies rows with each of the weights, one after the other.

        The weights lie in the layout that ggml's loader would give them.
        """
        base = self._base
        places, work = self.context(), self.context()
        rows, width = weights[0].shape
        number = weights[0].dtype.number
        assert number is not None
        stored = [base.ggml_new_tensor_2d(places, number, width, rows) for _ in weights]
        if repack and weights[0].dtype.name in ("Q4_0", "Q4_K", "IQ4_NL", "Q2_K") and rows % 8 == 0:
            kind = getattr(self._cpu, _REPACK)()
            base.ggml_backend_alloc_ctx_tensors_from_buft(places, kind)
        else:
            base.ggml_backend_alloc_ctx_tensors(places, self._backend)
        for place, tensor in zip(stored, weights, strict=True):
            data = np.ascontiguousarray(tensor.data)
            base.ggml_backend_tensor_set(place, data.ctypes.data, 0, data.nbytes)
        given = base.ggml_new_tensor_2d(work, 0, width, len(x))
        graph = base.ggml_new_graph(work)
        results = [base.ggml_mul_mat(work, place, given) for place in stored]
        for result in results:
            base.ggml_build_forward_expand(graph, result)
        base.ggml_backend_alloc_ctx_tensors(work, self._backend)
        x = np.ascontiguousarray(x, np.float32)
        base.ggml_backend_tensor_set(given, x.ctypes.data, 0, x.nbytes)

        def run() -> None:
            self._cpu.ggml_backend_cpu_set_n_threads(self._backend, threads)
            base.ggml_backend_graph_compute(self._backend, graph)

        return run


def ggml() -> Ggml | None:
    """Return the peer, or None where no build of it is named."""
    directory = os.environ.get("LLMBOL_GGML")
    return Ggml(directory) if directory else None
