"""Commands of ``nn`` that look at models and change how their weights are stored."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from llmbol_cli import render
from llmbol_cli.options import (
    AsJson,
    FileOrStdout,
    ModelOrSpec,
    Threads,
    file_name,
    of_size,
    required,
    size,
)

app = render.app("Look at models, compare them, change how their weights are stored.")

GgufFile = Annotated[
    str, typer.Argument(metavar="FILE", help="Any GGUF file, or a compiled model; - is stdin.")
]


@contextmanager
def _target(output: str | None, as_json: bool) -> Iterator[str | None]:
    """Give the path to write to; standard output gets in the end what is written there."""
    if output != "-":
        yield output
        return
    if as_json:
        raise typer.BadParameter("--json and --output - both write to standard output")
    with tempfile.TemporaryDirectory(prefix="llmbol-") as folder:
        path = os.path.join(folder, "stdout.gguf")
        yield path
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                render.write_bytes(piece)


@app.command()
def quantize(
    source: GgufFile,
    to: Annotated[str, typer.Option("--type", "-t", help="Storage type, such as q8_0 or q4_k.")],
    output: FileOrStdout = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=TYPE", help="Another type for matching tensors."),
    ] = None,
    max_shard: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Split into files of at most this size.", callback=of_size
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, and write nothing.")] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Store the weight matrices of a model in fewer bits; report on each tensor.

    Example: nn quantize digits.gguf -t q8_0 -o digits-q8_0.gguf
    """
    from llmbol_core.nn.quantize import quantize_checkpoint

    wanted = None if dry_run else required(output, "'--output' / '-o'")
    limit = None if max_shard is None else size(max_shard)
    if limit is not None and wanted == "-":
        raise typer.BadParameter("--max-shard makes several files: --output - is one")
    with _target(wanted, as_json) as target, render.progress("quantizing") as progress:
        report = quantize_checkpoint(source, target, to, progress, tensor_type or (), limit)
    if wanted != "-":
        render.show(report if as_json else report.table(), as_json)


@app.command()
def dequantize(
    source: GgufFile,
    output: FileOrStdout = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Store all weights of a model as float32 again.

    Example: nn dequantize digits-q8_0.gguf -o digits-f32.gguf
    """
    from llmbol_core.nn.quantize import dequantize_checkpoint

    wanted = required(output, "'--output' / '-o'")
    with _target(wanted, as_json) as target, render.progress("expanding") as progress:
        report = dequantize_checkpoint(source, target or wanted, progress)
    if wanted != "-":
        render.show(report if as_json else report.table(), as_json)


@app.command()
def summary(
    source: ModelOrSpec,
    depth: Annotated[int, typer.Option(min=1, help="How deep to go into containers.")] = 3,
    graph: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw a diagram, .svg or .png.", callback=file_name),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show each layer's shapes, parameters, multiply-accumulates and memory, and the totals.

    Example: nn summary specs/digits-mlp.yaml
    """
    from llmbol_core.native.files import check_target
    from llmbol_core.nn.checkpoint import open_model

    model = open_model(source)
    if graph is not None:
        from llmbol_core.nn.diagram import write_diagram

        check_target(graph, source)
        write_diagram(model, graph)
    result = model.summary(depth)
    render.show(result if as_json else result.table(), as_json)


@app.command("inspect")
def inspect_model(
    source: GgufFile,
    histogram: Annotated[
        bool, typer.Option("--histogram", help="Show each tensor's distribution.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the metadata and the tensors of a GGUF file.

    Example: nn inspect digits.gguf
    """
    from llmbol_core.nn.inspect import bars, histograms, inspect_file

    if histogram:
        found = histograms(source)
        render.show(found if as_json else bars(found), as_json)
    else:
        render.show(inspect_file(source), as_json)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A checkpoint or compiled model.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    inputs: Annotated[
        str,
        typer.Option("--input", metavar="FILE", help="Samples: .npy, .npz or .csv; - is stdin."),
    ],
    array: Annotated[str | None, typer.Option(help="Which array of an .npz.")] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Show how far the outputs of two models differ, and the results of each layer.

    Example: nn compare digits.gguf digits-q8_0.gguf --input specs/data/digits.npz
    """
    from llmbol_core.nn.compare import compare_files

    render.show(compare_files(first, second, inputs, array), as_json)


@app.command()
def ops(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One operation.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the operations that models consist of, or show one with its attributes and cost.

    Example: nn ops softmax
    """
    from llmbol_core.ml.catalog import describe_operation, list_operations

    if name is None:
        render.show(list_operations(), as_json)
    else:
        entry = describe_operation(name)
        render.show(entry if as_json else str(entry), as_json)
