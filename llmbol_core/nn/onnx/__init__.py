"""ONNX both ways: the only package that knows the format.

    reading  document -> reader (rows of ``IMPORTERS``) -> steps of operations -> layers (lifting)
    writing  a model's graph -> rows of ``EXPORTERS`` -> document

Both tables have one row for each operator or operation. ``agreement`` holds a model and a file
against each other by running both.
"""
