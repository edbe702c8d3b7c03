"""``lianzhi report``: one page that compares runs."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "report"


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            autocompletion=complete.models,
            help="Artifact folders, or their report.json files.",
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The page to write, such as report.html.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Write one HTML page that compares runs: what ships of each, steps, charts, recipes, layers.

    Example: lianzhi report out/half out/third -o report.html
    """
    from lianzhi import jobs

    common.begin(seed)
    jobs.checked_device(device)
    result = jobs.report(runs, output, force=force)
    if as_json:
        common.say_json(result)
        return
    for text in [] if quiet else result["remarks"]:
        common.remark(text)
    common.say(f"{result['path']}: {', '.join(run['name'] for run in result['runs'])}")
