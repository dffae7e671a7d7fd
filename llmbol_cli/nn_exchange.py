"""Commands of ``nn`` that read and write the files of other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from llmbol_cli import render
from llmbol_cli.options import AsJson, Output, named

app = render.app("Exchange models with other programs.")


@app.command("export")
def export_model(
    source: Annotated[str, typer.Argument(metavar="MODEL.gguf", help="A checkpoint; - is stdin.")],
    output: Output,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX, or its weights as safetensors, PyTorch state or .npz; check the file.

    Example: nn export digits.gguf -o digits.onnx
    """
    from llmbol_core.nn.exchange import export_file

    render.show(export_file(source, output), as_json)


@app.command("import")
def import_model(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A .onnx, .safetensors, .pt, .npz or .gguf file."),
    ],
    output: Output,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="The spec whose model the weights belong to.", callback=named
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The name of the model.", callback=named)] = None,
    result: Annotated[
        str | None, typer.Option(metavar="NAME", help="The output to import; else the first.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=LENGTH", help="The length of an axis that the file leaves open."
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="What a beginning of tensors' names stands for."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a checkpoint of an ONNX model, or of weights and the spec that they belong to.

    Example: nn import digits.onnx -o again.gguf
    """
    from llmbol_core.nn.exchange import ImportOptions, import_file

    options = ImportOptions(into, name, result, tuple(size or ()), tuple(rename or ()))
    report = import_file(source, output, options)
    render.show(report.row, as_json)
    for note in report.notes:
        render.note(note)
