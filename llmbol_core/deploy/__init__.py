"""A model as one sandboxed .dis file: compile it, open it, run it within limits."""

from llmbol_core.deploy.runner import Limits, RunResult, create_vm, run_file

__all__ = ["Limits", "RunResult", "create_vm", "run_file"]
