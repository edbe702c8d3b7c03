"""``lianzhi inspect``: layers, MACs and prunable groups of a model; changes nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common

NAME = "inspect"


def command(
    model: Annotated[
        str, typer.Argument(help="An artifact folder, a zoo name (resnet20), or a YAML recipe.")
    ],
    shape: Annotated[
        str | None, typer.Option("--input", help="Input shape of one sample, such as 3x32x32.")
    ] = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Show a model's layers, MACs, channel groups, and what cannot be pruned, with the reason.

    Example: lianzhi inspect resnet20 --input 3x32x32
    """
    from lianzhi import jobs

    result = jobs.inspect(model, shape=shape)
    common.say_json(result.to_dict()) if as_json else common.say(str(result))
