"""Commands of ``nn`` that make models: specs, training, evaluation."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from llmbol_cli import render
from llmbol_cli.options import (
    MAX_SEED,
    AsJson,
    Checkpoint,
    Data,
    Epochs,
    ModelOrSpec,
    Output,
    Seed,
    Settings,
    Threads,
    file_name,
    output_option,
)

app = render.app("Make models.")

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="A YAML spec; - is stdin.")]


@app.command()
def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the model, or of its file.")
    ],
    output: Annotated[str | None, output_option("Else NAME.yaml.")] = None,
) -> None:
    """Write a commented spec to start from.

    Example: nn init my-model
    """
    from llmbol_core.nn.starter import write_starter

    render.show(write_starter(name, output))


class Family(enum.StrEnum):
    """What specs can name."""

    layer = "layer"
    loss = "loss"
    optimizer = "optimizer"
    schedule = "schedule"


@app.command()
def layers(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, such as Linear or Adam.")
    ] = None,
    family: Annotated[
        Family, typer.Option("--of", help="List others that specs can name.")
    ] = Family.layer,
    as_json: AsJson = False,
) -> None:
    """List the layers that specs can name, or show one with its fields.

    Example: nn layers Linear
    """
    from llmbol_core.nn.catalog import describe_member, list_layers, list_members

    if name is None:
        lines = list_layers() if family is Family.layer else list_members(family)
        render.show(lines, as_json)
    else:
        entry = describe_member(name)
        render.show(entry if as_json else str(entry), as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of specs, with which editors complete and check them.

    Example: nn schema
    """
    from llmbol_core.nn.schema import spec_schema

    render.show(spec_schema(), as_json=True)


@app.command()
def check(spec: Spec, as_json: AsJson = False) -> None:
    """Check a spec, its gradients and its data; show all mistakes with their places.

    Example: nn check specs/digits-mlp.yaml
    """
    from llmbol_core.nn.check import check_spec

    render.show(check_spec(spec), as_json)


@app.command()
def build(
    spec: Spec,
    output: Output,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Seed of the initial weights.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a checkpoint with initial weights from a YAML spec.

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


@app.command()
def train(
    source: ModelOrSpec,
    output: Annotated[
        str | None, output_option("Where to write: else MODEL itself, or NAME.gguf for a spec.")
    ] = None,
    data: Data = None,
    epochs: Epochs = None,
    seed: Seed = None,
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where an interrupted run stopped.")
    ] = False,
    keep_every: Annotated[
        int, typer.Option(min=0, metavar="N", help="Allow to resume every N epochs; 0: never.")
    ] = 1,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the learning curve.")] = False,
    curve: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Draw the learning curve, .svg or .png.", callback=file_name
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train a model as its spec says and write the checkpoint.

    Example: nn train specs/digits-mlp.yaml -o digits.gguf
    """
    from llmbol_core.native.files import check_target
    from llmbol_core.nn.curves import curve_text, write_curve
    from llmbol_core.nn.drawing import check_ending
    from llmbol_core.nn.train import Options, train_file

    if curve is not None:
        check_ending(curve)
        check_target(curve, source)
    with render.progress("training") as progress:
        changes = {"epochs": epochs, "seed": seed}
        options = Options(tuple(settings or ()), keep_every, resume)
        run = train_file(source, output, data, changes, progress, options)
    if curve is not None:
        write_curve(run.history, run.model, curve)
    render.show(run if as_json else [run.row()], as_json)
    if plot:
        render.note(curve_text(run.history, run.model))


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
