"""``lianzhi train``: train or fine-tune a teacher or a baseline."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete, compress

NAME = "train"


def command(
    recipe: Annotated[
        str,
        typer.Argument(autocompletion=complete.recipes, help="A YAML recipe whose steps are all 'train'."),
    ],
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
    """Train a model: the same as compress, for recipes that only train. The result is an artifact.

    Example: lianzhi train recipes/fashion-dense.yaml -o out/dense
    """
    from lianzhi import jobs

    jobs.require_training_only(recipe, overrides=overrides or [])
    compress.run_recipe(recipe, output, overrides, resume, force, dry_run, seed, device, as_json, quiet)
