"""``lianzhi compress``: run a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common

NAME = "compress"


def command(
    recipe: Annotated[str, typer.Argument(help="A YAML recipe.")],
    output: common.Output = None,
    overrides: common.Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print steps, data and an estimated time; do nothing.")
    ] = False,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Run a recipe: a trained model goes in, a smaller and faster one comes out, with a report.

    Example: DATA=data lianzhi compress recipes/cifar10-resnet56.yaml -o out/resnet56
    """
    from lianzhi import jobs

    job = jobs.prepare(recipe, overrides=overrides or [], seed=seed, device=device)
    if not quiet:
        for remark in job.remarks:
            common.remark(remark)
    if dry_run:
        plan = jobs.dry_run(job)
        common.say_json(plan.to_dict()) if as_json else common.say(str(plan))
        return
    result = jobs.run(job, output=output, resume=resume, force=force, progress=not (quiet or as_json))
    if result is None:
        return
    if as_json:
        common.say_json(result.report.to_dict())
    else:
        common.say(result.table())
        common.say(f"\nartifact  {result.path}\nreport    {result.path / 'report.html'}")
