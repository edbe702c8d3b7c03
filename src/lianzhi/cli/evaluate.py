"""``lianzhi evaluate``: the metric of a model on a task."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "evaluate"


def command(
    model: Annotated[
        str,
        typer.Argument(autocompletion=complete.models, help="An artifact folder, a .lzc or an .onnx file."),
    ],
    task: common.TaskName = None,
    data: common.Data = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            autocompletion=complete.splits,
            help="train, validation, calibration, test or another of the task (default: the reported one).",
        ),
    ] = None,
    runtime: common.Runtime = None,
    precision: common.Precision = None,
    threads: common.Threads = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples a batch.")] = 256,
    options: common.Options = None,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Measure a model's accuracy, every sample counted once.

    Example: lianzhi evaluate out/resnet56 --task cifar10 --data data/cifar10
    """
    from lianzhi import jobs

    common.begin(seed)
    result = jobs.evaluate(
        common.model_path(model),
        task=task,
        data=data,
        split=split,
        runtime=runtime,
        precision=precision,
        threads=threads,
        device=device,
        batch=batch,
        options=common.key_values(options),
        progress=not (quiet or as_json),
    )
    if as_json:
        common.say_json(result)
        return
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items())
    common.say(
        f"{result['model']}  {result['runtime']} {result['precision']}  {result['task']} {result['split']}"
    )
    common.say(f"{metrics}  ({result['samples']:,} samples)")
