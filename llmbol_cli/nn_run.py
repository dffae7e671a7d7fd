"""Commands of ``nn`` that run models and make programs of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llmbol_cli import render
from llmbol_cli.options import (
    AsJson,
    Checkpoint,
    Output,
    OutputIfAny,
    Threads,
    finite,
    named,
    numbers,
    output_option,
    required,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmbol_core.nn.checkpoint import InferenceModel
    from llmbol_core.nn.module import Array

app = render.app("Run models and make programs of them.")


@app.command()
def infer(
    source: Checkpoint,
    inputs: Annotated[
        str, typer.Argument(metavar="INPUT", help="Samples: .npy, .npz, .csv or JSON; - is stdin.")
    ],
    top_k: Annotated[
        int | None,
        typer.Option(min=0, help="Show the labels of the K highest values; 0 shows all values."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Labels of the values, one per line.", callback=named),
    ] = None,
    array: Annotated[str | None, typer.Option(help="Which array of an .npz.")] = None,
    output: Annotated[str | None, output_option("Write a .npy instead.")] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Report latency, throughput and memory at the end.")
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Print the model's output for each sample, one line of tab-separated numbers each.

    Example: nn infer digits.gguf specs/data/digits.npz --top-k 1
    """
    from llmbol_core.native.files import check_target
    from llmbol_core.nn.checkpoint import load_for_inference
    from llmbol_core.nn.infer import (
        Stopwatch,
        infer_parts,
        infer_stream,
        read_inputs,
        save_outputs,
        use_labels,
    )

    if output is not None:
        check_target(output, source, inputs, *([labels] if labels else []))
    model, clock = load_for_inference(source), Stopwatch()
    if labels is not None:
        use_labels(model, labels)
    if inputs == "-":
        stdin = sys.stdin.buffer
        read = getattr(stdin, "read1", stdin.read)  # what there is, without waiting for more
        parts = infer_stream(model, read, inputs, array)
    else:
        parts = infer_parts(model, read_inputs(model, inputs, None, array))
    parts = clock.watch(parts)
    if output is not None:
        save_outputs(parts, output)
    else:
        _show_outputs(model, parts, top_k, as_json)
    if stats:
        render.note(str(clock.stats()))


def _show_outputs(
    model: InferenceModel, parts: Iterator[Array], top_k: int | None, as_json: bool
) -> None:
    """Print outputs as they come, or all at once where the form wants it."""
    import numpy as np

    from llmbol_core.ml.text import format_rows
    from llmbol_core.nn.infer import top_candidates

    said = model.model.output
    if top_k := (said.top_k if said and top_k is None else top_k):
        render.show(top_candidates(model, np.concatenate(list(parts)), top_k), as_json)
    elif as_json:
        render.show(np.concatenate(list(parts)).tolist(), as_json)
    else:
        for part in parts:
            render.show(format_rows(part))
            sys.stdout.flush()


@app.command()
def bench(
    source: Checkpoint,
    batch: Annotated[str, typer.Option(metavar="N,N,...", help="Sizes of batches.")] = "1,16,256",
    seconds: Annotated[
        float,
        typer.Option(min=0.0, max=3600.0, help="How long to run each size.", callback=finite),
    ] = 0.5,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency, throughput and memory of a model, and the gain over float weights.

    Example: nn bench digits-q8_0.gguf --batch 1,32 --seconds 0.1
    """
    from llmbol_core.nn.bench import bench_file

    with render.progress("running") as progress:
        report = bench_file(source, numbers(batch, "--batch"), seconds, progress)
    render.show(report, as_json)


@app.command("compile")
def compile_model(
    source: Checkpoint,
    output: OutputIfAny = None,
    listing: Annotated[bool, typer.Option(help="Print the Dis assembly instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compile a checkpoint to one sandboxed Dis program with its weights inside.

    Example: nn compile digits.gguf -o digits.dis
    """
    from llmbol_core.deploy.compiler import compile_file, list_file
    from llmbol_core.native.files import check_target

    if listing and output is not None:
        check_target(output, source)
        render.write(list_file(source).encode(), output)
    elif listing:
        render.show(list_file(source))
    else:
        render.show(compile_file(source, required(output, "'--output' / '-o'")), as_json)


@app.command()
def extract(
    source: Annotated[
        str, typer.Argument(metavar="MODEL.dis", help="A compiled model; - is stdin.")
    ],
    output: Output,
) -> None:
    """Recover the checkpoint that a compiled model was made from.

    Example: nn extract digits.dis -o again.gguf
    """
    from llmbol_core.nn.container import extract as extract_file

    render.show(f"{output}: {extract_file(source, output)} bytes")
