"""``lianzhi list``: everything that has a name."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "list"


def command(
    kind: Annotated[
        str,
        typer.Argument(
            autocompletion=complete.listed,
            help="criteria, losses, methods, models, observers, tasks, targets, techniques or recipes.",
        ),
    ],
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """List criteria, losses, methods, models, observers, tasks, targets, techniques or recipes, with papers and options.

    Example: lianzhi list criteria
    """
    from lianzhi import jobs

    common.begin(seed)
    jobs.checked_device(device)
    rows = jobs.names(kind)
    if as_json:
        common.say_json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        paper = f"  [{row['paper']}]" if row["paper"] else ""
        package = f"  (of {row['package']})" if row["package"] else ""
        common.say(f"{row['name']:<{width}}  {row['summary']}{paper}{package}")
