"""$Ml: tensors for Dis programs, and every operation of the table that works on them.

A ``ref Tensor`` stands for an array that the host keeps: its bytes count against the machine's
memory limit, and it goes away with its last reference. The numbers in the record tell a program
about the tensor; the host never reads them back. Weights are views of the payload that the calling
module's file carries: they are shared by all who map the file and cost the machine nothing.

What an operation refuses is an exception, ``ml: ``, the operation, the reason and what was given.
"""

from llmbol_core.builtins.ml import arrays, operations, plans, samples
from llmbol_core.builtins.ml.tensors import binding

__all__ = ["arrays", "binding", "operations", "plans", "samples"]
