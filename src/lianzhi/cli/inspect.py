"""``lianzhi inspect``: layers, MACs, prunable groups and their sensitivity; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "inspect"


def command(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=complete.any_model,
            help="An artifact folder, a .lzc file, a zoo name, or a YAML recipe.",
        ),
    ],
    shape: Annotated[
        str | None, typer.Option("--input", help="Input shape of one sample, such as 3x32x32.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Weights of a zoo model, a .safetensors file.")
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Measure the metric, on the validation cut, against pruning."),
    ] = False,
    task: common.TaskName = None,
    data: common.Data = None,
    ratios: Annotated[
        str | None,
        typer.Option("--ratios", help="Shares removed that are tried (default: 0.25,0.5,0.75)."),
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            "--criterion",
            autocompletion=complete.named("criteria"),
            help="Which channels go first (default: l1).",
        ),
    ] = None,
    plot: Annotated[str | None, typer.Option("--plot", help="Write the curves to this SVG file.")] = None,
    options: common.Options = None,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Show a model's layers, MACs, channel groups, and what cannot be pruned, with the reason.

    With --sensitivity, one group at a time loses its weakest channels, and the metric is measured on the
    validation cut: never on the split that is reported.

    Example: lianzhi inspect resnet20 --input 3x32x32

    Example: lianzhi inspect out/resnet56 --sensitivity --data data/cifar10 --plot curves.svg
    """
    from lianzhi import jobs
    from lianzhi.errors import RecipeError

    common.begin(seed)
    given = {
        "--task": task,
        "--data": data,
        "--ratios": ratios,
        "--criterion": criterion,
        "--plot": plot,
        "--set": options,
    }
    if not sensitivity:
        unread = [name for name, value in given.items() if value]
        if unread:
            raise RecipeError(f"{', '.join(unread)}: only --sensitivity reads these; add it")
        result = jobs.inspect(model, shape=shape, weights=weights, device=device)
    else:
        if plot is not None:
            _check_plot(Path(plot))
        with common.bar("sensitivity", shown=not (quiet or as_json)) as report:
            question = jobs.Question(
                task=task,
                data=data,
                options=common.key_values(options),
                criterion=criterion or "l1",
                report=report,
                **({} if ratios is None else {"ratios": _shares(ratios)}),
            )
            result = jobs.inspect(model, shape=shape, weights=weights, device=device, question=question)
        if plot is not None and result.sensitivity is not None:
            result.sensitivity.plot(plot)
    common.say_json(result.to_dict()) if as_json else common.say(str(result))


def _shares(text: str) -> tuple[float, ...]:
    from lianzhi.errors import RecipeError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(f"--ratios {text}: write shares between 0 and 1 as 0.25,0.5,0.75") from None


def _check_plot(path: Path) -> None:
    """Before minutes of measuring: a file can be made there, and none is."""
    from lianzhi.errors import RecipeError

    if not path.parent.is_dir():
        raise RecipeError(f"--plot {path}: there is no such folder; make it first")
    if path.exists():
        raise RecipeError(f"--plot {path}: is there already; name another file, or remove it")
