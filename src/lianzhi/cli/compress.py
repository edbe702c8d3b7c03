"""``lianzhi compress``: run a recipe, or quantize an ONNX file made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lianzhi.cli import common, complete

NAME = "compress"
FileTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        autocompletion=complete.named("targets"),
        help="Of an .onnx file: onnxruntime, openvino, … (default: auto, the fastest here).",
    ),
]


def command(
    recipe: Annotated[
        str,
        typer.Argument(
            autocompletion=complete.recipes, help="A YAML recipe, or a float .onnx file made elsewhere."
        ),
    ],
    output: common.Output = None,
    overrides: common.Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print steps, data and an estimated time; do nothing.")
    ] = False,
    target: FileTarget = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Of an .onnx file: calibration data, images or .npz, .npy with arrays."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            autocompletion=complete.named("tasks"),
            help="Of an .onnx file: the task whose calibration cut is read.",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--input", help="Of an .onnx file: the shape of one sample, such as 3x224x224."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", help="Of images, as numbers in 0…1: 0.485,0.456,0.406 (default: 0)."),
    ] = None,
    std: Annotated[
        str | None, typer.Option("--std", help="Of images: 0.229,0.224,0.225 (default: 1).")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="Of an .onnx file: how many are read (default: 256)."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Of an .onnx file: samples a batch (default: 8).")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", help="Of an .onnx file: a pattern of names of nodes that stay float."),
    ] = None,
    observer: Annotated[
        str | None,
        typer.Option(
            "--observer",
            autocompletion=complete.named("observers"),
            help="Of an .onnx file: minmax, percentile, entropy, … (default: mse). See: lianzhi list observers",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            help="Of an .onnx file: layers go back to float until it agrees with float on 1 less this (0.01: 99 %).",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Keep int8 only where it is faster than float here."),
    ] = True,
    threads: common.Threads = None,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Run a recipe: a trained model goes in, a smaller and faster one comes out, with a report.

    Given a float .onnx file instead, quantize it for a runtime, whoever made it.

    Example: DATA=data lianzhi compress recipes/cifar10-resnet56.yaml -o out/resnet56

    Example: lianzhi compress detector.onnx --data images/ --input 3x320x320 --target onnxruntime -o out/detector
    """
    reading: dict[str, Any] = {
        "--mean": mean,
        "--std": std,
        "--input": shape,
        "--samples": samples,
        "--batch": batch,
    }
    reading |= {"--ignore": ignore, "--observer": observer}
    of_files = {"--target": target, "--data": data, "--task": task, "--threads": threads, **reading}
    of_files["--max-drop"] = max_drop is not None
    if Path(recipe).suffix.lower() != ".onnx":
        refuse(
            {**of_files, "--no-measure": not measure},
            "is for an .onnx file; a recipe names its own data, target and settings",
        )
        run_recipe(recipe, output, overrides, resume, force, dry_run, seed, device, as_json, quiet)
        return
    from lianzhi import jobs

    refuse({"--resume": resume}, "is for a recipe; an .onnx file is quantized anew")
    refuse({"--set": None if task else overrides}, "gives options to a task: add --task NAME")
    common.begin(seed)
    jobs.checked_device(device)
    result = jobs.compress_onnx(
        common.model_path(recipe),
        output=output,
        target=target,
        data=data,
        task=task,
        task_options=common.key_values(overrides),
        options=jobs.DataOptions(
            samples=samples or 256,
            batch=batch,
            shape=common.sizes(shape, "--input") if shape else None,
            mean=common.numbers(mean, "--mean") if mean else None,
            std=common.numbers(std, "--std") if std else None,
        ),
        max_drop=max_drop,
        threads=threads,
        force=force,
        dry_run=dry_run,
        timed=measure,
        ignore=ignore or (),
        observer=observer,
    )
    common.say_json(result.to_dict()) if as_json else common.say(str(result))


def run_recipe(
    recipe: str,
    output: str | None,
    overrides: list[str] | None,
    resume: bool,
    force: bool,
    dry_run: bool,
    seed: int | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a recipe and print its result."""
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


def refuse(given: dict[str, Any], why: str) -> None:
    """Options that nobody would read are an error."""
    from lianzhi.errors import RecipeError

    unread = [name for name, value in given.items() if value]
    if unread:
        raise RecipeError(f"{', '.join(unread)} {why}")
