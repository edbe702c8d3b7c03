"""``lianzhi init``: a commented recipe for a model and data in the current folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lianzhi.cli import common, complete

if TYPE_CHECKING:
    from lianzhi.jobs import Missing

NAME = "init"


def command(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            autocompletion=complete.any_model,
            help="FILE.py:NAME, a name of the zoo, an artifact, a Hugging Face folder, MODEL.onnx (default: what is here).",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="Trained weights, or none (default: the file beside the model)."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="The folder or file of the data (default: what is here).")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            autocompletion=complete.named("tasks"),
            help="How the data is read (default: found out). See: lianzhi list tasks",
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            "--goal",
            autocompletion=complete.fixed("fastest", "smallest", "accurate"),
            help="fastest, smallest or accurate (default: fastest).",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            autocompletion=complete.named("targets"),
            help="What the model is to run on. See: lianzhi list targets",
        ),
    ] = "auto",
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write.")] = "recipe.yaml",
    overrides: common.Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Write a recipe for a model and data that lie here, each line with a comment; it runs as it stands.

    On a terminal what is not clear is asked. Your Python file is read, and not run.

    Example: lianzhi init

    Example: lianzhi init --model net.py:Net --data photos --goal smallest -o small.yaml
    """
    from lianzhi import jobs

    settings = [
        f"{name}={value}" for name, value in (("seed", seed), ("device", device)) if value is not None
    ]
    jobs.checked_device(device)
    wish = jobs.Wish(model, weights, data, task, goal, target, output, [*(overrides or []), *settings], force)
    started = jobs.init(wish, ask if sys.stdin.isatty() and not (as_json or quiet) else None)
    common.say_json(started.to_dict()) if as_json else common.say(str(started))


def ask(question: Missing) -> str:
    """Ask on the terminal; a number chooses, any other text is the answer itself."""
    typer.echo(question.text, err=True)
    width = max((len(value) for value, _ in question.choices), default=0)
    for number, (value, meaning) in enumerate(question.choices, 1):
        typer.echo(f"  {number}  {value:<{width}}  {meaning}".rstrip(), err=True)
    if question.hint:
        typer.echo(f"  ({question.hint})", err=True)
    default = "1" if question.choices else None
    text = str(typer.prompt(question.flag, default=default, err=True)).strip()
    place = int(text) if text.isdigit() else 0
    return question.choices[place - 1][0] if 1 <= place <= len(question.choices) else text
