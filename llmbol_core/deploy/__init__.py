"""A model as one sandboxed .dis file: compile it, open it, run it within limits."""
