"""The command ``nn``: its parts, in the order in which a model goes through them."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from llmbol_cli import nn_exchange, nn_run, nn_tools, nn_train, render
from llmbol_cli.options import AsJson

app = render.app("Build, train, run and quantize neural networks.")


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


for part in (nn_train, nn_tools, nn_run, nn_exchange):
    app.add_typer(part.app)


def main() -> NoReturn:
    """Run ``nn``."""
    render.run(app)
