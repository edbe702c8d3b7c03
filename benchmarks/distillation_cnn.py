"""ResNet-56 to ResNet-20 on CIFAR-10: the student alone, and by kd, dkd, dist and review_kd; the other methods by flag.

    python benchmarks/distillation_cnn.py                                  # a run that is on record is not done again
    python benchmarks/distillation_cnn.py --methods crd pkt rkd --seeds 0
    python benchmarks/distillation_cnn.py --trial                          # a minute: 512 images, in a record of its own

The teacher is the published ResNet-56, fine-tuned on this copy of the data (see `--teacher-epochs`). A seed gives the
student's first weights and the order of the images, the same for every method; all are trained by the same loop
with the same options; weights are each method's defaults, or its authors' for this pair. A run that was stopped goes on
where it was.

Top-1 is of the test split, which nothing is chosen by: the best epoch is that of the part cut off from the training data.
Seconds are of one epoch of training, without evaluation; on a busy machine they say nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from records import Records, records_of, spread, trial_options
from torch import nn

import lianzhi as lz
from lianzhi import distill, files, train

ALONE = "alone"
METHODS = (ALONE, "kd", "dkd", "dist", "review_kd")
MORE = ("fitnet", "attention_transfer", "rkd", "similarity_preserving", "pkt", "nst", "crd")
# The authors' weights for this pair (on CIFAR-100), where they are not the method's default.
OF_THIS_PAIR: dict[str, dict[str, Any]] = {"review_kd": {"weight": 0.6}, "dkd": {"beta": 2.0}}


def options(given: argparse.Namespace, epochs: float, lr: float) -> train.TrainOptions:
    """The same for every method."""
    return train.TrainOptions(epochs=epochs, lr=lr, batch_size=128, warmup=0.05, precision=given.precision)


def taught(given: argparse.Namespace, task: lz.Task) -> nn.Module:
    """The teacher on this copy of the data, trained once and kept in the work folder."""
    model = lz.model("resnet56", weights=given.data / "cifar10" / "resnet56.safetensors")
    file = given.work / f"teacher-{given.teacher_epochs:g}.safetensors"
    if file.is_file():
        model.load_state_dict(files.read_tensors(file))
    elif given.teacher_epochs:
        train.fit(
            model,
            task,
            options(given, given.teacher_epochs, lr=0.02),
            directory=given.work / "teacher",
            resume=True,
            title="teacher",
            device=given.device,
        )
        files.write_tensors(file, model.state_dict())
    return model.eval()


def stages_of(
    method: str, teacher: nn.Module, student: nn.Module, task: lz.Task, seed: int
) -> list[tuple[str, nn.Module, Any]]:
    """What is trained one after another: a name, a model, and a step; for the student alone the loop's own."""
    if method == ALONE:
        return [(ALONE, student, None)]
    entry = distill.methods.registry.get(method)
    setting = distill.methods.Setting(teacher, student, task, seed=seed)
    lessons = entry.build(setting, entry.config(**OF_THIS_PAIR.get(method, {})))
    return [(stage.name, stage.model or student, stage.step) for stage in lessons.stages]


def run(
    method: str, seed: int, teacher: nn.Module, task: lz.Task, given: argparse.Namespace
) -> dict[str, Any]:
    """Train one student, from where a stopped run was, and evaluate it."""
    torch.manual_seed(seed)
    student = lz.model("resnet20")
    seconds = []
    for name, model, step in stages_of(method, teacher, student, task, seed):
        history = train.fit(
            model,
            task,
            options(given, given.epochs, lr=0.1),
            step=step,
            seed=seed,
            directory=given.work / f"{method}-{given.epochs:g}-{seed}-{name}",
            resume=True,
            title=f"{method}, seed {seed}",
            device=given.device,
        )
        seconds += [entry["seconds"] for entry in history.epochs]
    return {
        "top1": lz.measure.evaluate(student.to(given.device), task).value,
        "parameters": lz.measure.parameters(student),
        "epoch_seconds": statistics.median(seconds),
        "device": given.device,
    }


def table(records: Records, epochs: float, methods: list[str]) -> str:
    """Mean ± deviation over the seeds on record, and the gain over the student alone."""
    found = {method: tops(records, method, epochs, "top1") for method in methods}
    lines = ["| student | top-1 | over the student alone | seeds | an epoch |", "|---|---|---|---|---|"]
    lines.append(f"| (the teacher) | {records['teacher']['top1']:.2%} | | | |")
    for method, top in found.items():
        if top:
            alone = [] if method == ALONE else tops(records, ALONE, epochs, "top1", like=method)
            same = tops(records, method, epochs, "top1", like=ALONE)
            gain = f"{100 * (statistics.mean(same) - statistics.mean(alone)):+.2f}" if alone else ""
            seconds = statistics.median(tops(records, method, epochs, "epoch_seconds"))
            lines.append(f"| {method} | {spread(top)} | {gain} | {len(top)} | {seconds:.1f} s |")
    return "\n".join(lines)


def tops(records: Records, method: str, epochs: float, what: str, like: str | None = None) -> list[float]:
    """A value of a method's runs; of the seeds alone that the method `like` has too."""
    start, end = f"{method} | ", f" | {epochs:g} epochs"
    keys = [key for key, _ in records.items() if key.startswith(start) and key.endswith(end)]
    return [
        records[key][what] for key in keys if like is None or f"{like} | {key.removeprefix(start)}" in records
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIANZHI_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("out/distillation_cnn"))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *MORE], default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--teacher-epochs", type=float, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16", "auto"], default="auto")
    parser.add_argument("--device", default="cpu")
    trial_options(parser, "512 images and one epoch")
    given = parser.parse_args()
    if given.trial:
        given.work, given.epochs, given.teacher_epochs, given.seeds = given.work / "trial", 1, 0, [0]
    task = lz.task("cifar10", data=given.data / "cifar10", limit=512 if given.trial else None)
    records = records_of("distillation_cnn", given)
    teacher = taught(given, task)
    if "teacher" not in records:
        records.add("teacher", {"top1": lz.measure.evaluate(teacher, task).value})
    for seed in given.seeds:
        for method in given.methods:
            key = f"{method} | {seed} | {given.epochs:g} epochs"
            if key not in records:
                records.add(key, run(method, seed, teacher, task, given))
                print(key, records[key], file=sys.stderr)
    print(table(records, given.epochs, given.methods))


if __name__ == "__main__":
    main()
