"""``lianzhi measure``: size, MACs and latency of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "measure"


def command(
    model: Annotated[
        str,
        typer.Argument(autocompletion=complete.models, help="An artifact folder, a .lzc or an .onnx file."),
    ],
    runtime: common.Runtime = None,
    precision: common.Precision = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", min=1, help="Batch size; may be given several times (default: 1)."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--input", help="Shape of one sample, where an .onnx file leaves it open: 3x224x224."),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="PyTorch by torch.compile as well (needs a C++ compiler).")
    ] = False,
    threads: common.Threads = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed runs.")] = 50,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Time a model on every runtime installed, or on one; print its size, parameters and MACs.

    Example: lianzhi measure out/resnet56 --runtime onnxruntime --batch 1 --batch 64 --threads 2
    """
    from lianzhi import jobs

    common.begin(seed)
    result = jobs.measure_model(
        common.model_path(model),
        runtime=runtime,
        precision=precision,
        batches=batch or [1],
        threads=threads,
        device=device,
        repeats=repeats,
        shape=common.sizes(shape, "--input") if shape else None,
        compiled=compiled,
        progress=not (quiet or as_json),
    )
    common.say_json(result) if as_json else common.say(jobs.measure_text(result))
