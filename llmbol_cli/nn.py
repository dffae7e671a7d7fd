"""The command ``nn``: build, train, evaluate, run and quantize models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from llmbol_cli import nn_exchange, nn_tools, nn_train, render
from llmbol_cli.options import (
    MAX_SEED,
    AsJson,
    Checkpoint,
    Data,
    ModelOrSpec,
    Threads,
    file_name,
    required,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmbol_core.nn.checkpoint import InferenceModel
    from llmbol_core.nn.module import Array

app = render.app("Build, train, run and quantize neural networks.")

Output = Annotated[
    str,
    typer.Option("--output", "-o", metavar="FILE", help="Where to write.", callback=file_name),
]


@app.command()
def build(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A YAML spec.")],
    output: Output,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of the start values.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a checkpoint with start values from a YAML spec.

    Example: nn build specs/digits-mlp.yaml -o digits.gguf
    """
    from llmbol_core.native.files import check_target
    from llmbol_core.nn.checkpoint import save
    from llmbol_core.nn.spec import read_spec

    check_target(output, spec)
    model = read_spec(spec).seeded(seed)
    save(model, output)
    summary = model.summary()
    render.show(
        summary if as_json else f"{output}: {model.name}, {summary.parameters} parameters", as_json
    )


@app.command("eval")
def evaluate(
    source: Checkpoint,
    data: Data = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Show what each class was taken for.")
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure loss and accuracy on the held-out part of the data.

    Example: nn eval digits.gguf
    """
    from llmbol_core.nn.evaluate import evaluate_file

    with render.progress("evaluating") as progress:
        result = evaluate_file(source, data, progress)
    if confusion and not as_json:
        render.show(result.confusion())
    else:
        render.show(result if as_json else result.table(), as_json)
    if result.metrics:
        render.note("  ".join(f"{name} {value:.4g}" for name, value in result.metrics.items()))


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


@app.command()
def infer(
    source: Checkpoint,
    inputs: Annotated[
        str, typer.Argument(metavar="INPUT", help="Samples: .npy, .npz, .csv or JSON; - for stdin.")
    ],
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Show the labels of the K highest values.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="Labels of the values, one on a line.")
    ] = None,
    array: Annotated[str | None, typer.Option(help="Which array of an .npz.")] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write a .npy instead.", callback=file_name
        ),
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Tell latency, throughput and memory in the end.")
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
        check_target(output, source)
    model, clock = load_for_inference(source), Stopwatch()
    if labels is not None:
        use_labels(model, labels)
    if inputs == "-":
        stdin = sys.stdin.buffer
        read = getattr(stdin, "read1", stdin.read)  # what there is, without waiting for more
        parts = infer_stream(model, read, "<stdin>", array)
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

    if top_k is not None:
        render.show(top_candidates(model, np.concatenate(list(parts)), top_k), as_json)
    elif as_json:
        render.show(np.concatenate(list(parts)).tolist(), as_json)
    else:
        for part in parts:
            render.show(format_rows(part))
            sys.stdout.flush()


@app.command("compile")
def compile_model(
    source: Checkpoint,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write.", callback=file_name),
    ] = None,
    listing: Annotated[bool, typer.Option(help="Print the Dis assembly instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compile a checkpoint to one sandboxed Dis program with its weights inside.

    Example: nn compile digits.gguf -o digits.dis
    """
    from llmbol_core.deploy.compiler import compile_file, list_file

    if listing:
        render.show(list_file(source))
    else:
        render.show(compile_file(source, required(output, "--output")), as_json)


@app.command()
def layers(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One layer.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the layers that specs can name, or show one with its fields.

    Example: nn layers Linear
    """
    from llmbol_core.nn.catalog import describe_layer, list_layers

    if name is None:
        render.show(list_layers(), as_json)
    else:
        entry = describe_layer(name)
        render.show(entry if as_json else str(entry), as_json)


@app.command()
def demo(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.")
    ] = "digits-demo",
    as_json: AsJson = False,
) -> None:
    """Train, quantize, compile and run a model, in the machine and on a cluster; compare answers.

    Example: nn demo
    """
    from llmbol_core.demo import run_demo

    with render.progress("demo") as progress:
        done = run_demo(output, progress)
    render.show(done if as_json else done.rows, as_json)
    render.note(f"all answers agree; {done.seconds:.1f} s; the files are in {done.directory}/")


app.add_typer(nn_train.app)
app.add_typer(nn_tools.app)
app.add_typer(nn_exchange.app)


def main() -> NoReturn:
    """Run ``nn``."""
    render.run(app)
