"""Deep Compression, file sizes and accuracy over three seeds: LeNets on Fashion-MNIST, ResNet-20 and VGG-16 on CIFAR-10,
a 6-layer BERT on SST-2.

    python benchmarks/deep_compression.py --model lenet_300_100
    python benchmarks/deep_compression.py --model vgg16 --device cuda --start out/vgg16.safetensors
    python benchmarks/deep_compression.py --model bert6 --bert out/sst2-teacher
    python benchmarks/deep_compression.py                       # the table of what is on record, the paper's beside it

A model is trained; then one copy goes on training for so many epochs (the dense model that is compared with, and the only
teacher), and another is pruned by magnitude along a cubic schedule, its weights are shared, move between the shared values, and
these are trained, in the same number of epochs, with the same optimizer and augmentation. The file is what `lz.codebook.pack` writes; top-1 is that of
the model that the file gives back, on the test split; what is lost is counted from the dense model, or from a trained model that both began with
if that is better. What is on record is not done again; a phase that was stopped goes on.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from records import Records, records_of, spread, trial_options
from torch import nn

import lianzhi as lz
from lianzhi import artifact, codebook, distill, files, train
from lianzhi.codebook import masks, moving, sharing
from lianzhi.codebook.allocation import masks_for
from lianzhi.codebook.bits import bits_by_name
from lianzhi.codebook.gradual import Gradual

DATA = Path(os.environ.get("LIANZHI_DATA", Path(__file__).parents[2] / "shared" / "data"))
WORK = Path("out/deep_compression")
RAMP = 0.7  # of the epochs of pruning, until the sparsity is reached
TRIAL = 1024
EVERY = 50  # updates between two looks at the magnitudes


@dataclass(frozen=True)
class Plan:
    """How a model is trained and compressed. `kept` is the share of its weights that stays."""

    first: float  # epochs before the roads part
    prune: float
    move: float  # epochs in which shared weights still change values
    share: float  # epochs of the values
    kept: float | dict[str, float]  # or patterns of layers' names; the first that matches counts
    bits: int | dict[str, int]  # or patterns, as for kept
    bar: float  # the ratio that is to be reached
    most: float  # points that may be lost
    paper: str
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = (
        1e-4  # of Adam, where centroids are trained: their gradients are sums over thousands of weights
    )
    pruning: dict[str, Any] = field(default_factory=dict)  # in place of options, while it is pruned
    other: Literal["float32", "float16"] = "float32"  # of biases and shared values in the file
    move_rate: float = 1e-3  # of the plan's optimizer, where weights move
    alpha: float = 0.9
    feedback: bool = False  # removed weights move underneath and may come back; at SGD's rates they run away


LENET = {"lr": 0.05, "weight_decay": 1e-3, "augment": False}
LENET_PRUNING = {"lr": 0.03, "weight_decay": 5e-4}
LENET_5 = {"lr": 0.03, "weight_decay": 1e-3, "augment": False}
GENTLE = {"lr": 0.01, "clip": 1.0}  # gradients of soft targets are some T times as large as the labels'
CENTROIDS = {"optimizer": "adam", "weight_decay": 0.0}
SGD = {"lr": 0.05, "weight_decay": 5e-4, "precision": "auto"}
PAPER = "40x, error 1.64 -> 1.58 % (MNIST)"
BITS = {"fc3": 5, "*": 3}  # the last layer is small, and costs most
LENET_300_100 = Plan(10, 28, 8, 4, 0.115, BITS, 40, 0.1, PAPER, LENET, pruning=LENET_PRUNING, other="float16")
PLANS = {
    "lenet_300_100": LENET_300_100,
    "lenet_300_100_two_bits": replace(LENET_300_100, kept=0.143, bits={"fc3": 5, "*": 2}),
    "lenet_300_100_flips": Plan(20, 60, 0, 20, 0.105, 3, 40, 0.1, PAPER, {**LENET, "augment": True}),
    "lenet_5": Plan(
        10,
        28,
        8,
        4,
        0.105,
        {"conv*": 5, "fc2": 5, "*": 3},  # fc1 has 93 % of the weights
        39,
        0.1,
        "39x, error 0.80 -> 0.74 % (MNIST)",
        LENET_5,
        pruning=GENTLE,
        other="float16",
    ),
    "resnet20": Plan(0, 7, 6, 2, 0.39, 3, 15, 0.5, "-", {**SGD, "lr": 0.02}, other="float16"),
    "vgg16": Plan(6, 8, 0, 1, 0.045, 4, 60, 0.5, "49x, error 31.50 -> 31.17 % (ImageNet)", SGD),
    "bert6": Plan(
        0,
        0.5,
        0.5,
        0.5,
        {"*word_embeddings*": 0.38, "*": 0.75},  # the table is half of all weights, and misses them least
        {"*word_embeddings*": 3, "*": 4},
        12,
        0.5,
        "-",
        {"optimizer": "adamw", "lr": 5e-5, "batch_size": 32, "clip": 1.0, "precision": "auto"},
        other="float16",
        move_rate=5e-5,
    ),
}
ZOO = {
    "lenet_300_100_flips": "lenet_300_100",
    "lenet_300_100_two_bits": "lenet_300_100",
    "lenet_5": "lenet5",
    "vgg16": "vgg16_bn_cifar",
}


def short(plan: Plan) -> Plan:
    """One epoch of each phase that there is."""
    phases = {name: min(1.0, getattr(plan, name)) for name in ("first", "prune", "move", "share")}
    return replace(plan, **phases)


def task_of(name: str, bert: Path, limit: int | None = None) -> lz.Task:
    """The data of a model; `limit` is of samples a split."""
    if name.startswith("lenet"):
        return lz.task("fashion_mnist", padding=1 if name == "lenet_5" else 0, limit=limit)
    if name == "bert6":
        tokenizer = str(bert / "tokenizer")
        return lz.task("sst2", data=DATA / "glue" / "SST-2", tokenizer=tokenizer, limit=limit)
    return lz.task("cifar10", data=DATA / "cifar10", limit=limit)


def fit(
    model: nn.Module,
    task: lz.Task,
    plan: Plan,
    epochs: float,
    seed: int,
    device: str,
    folder: Path,
    **more: Any,
) -> None:
    """Train to the last epoch. `folder` is the phase's own: what is in it is gone on with."""
    options = train.TrainOptions(epochs=epochs, keep="last", **{**plan.options, **more.pop("options", {})})
    title = f"{folder.parent.name} {folder.name}"
    where: dict[str, Any] = {"directory": folder, "resume": True, "device": device, "title": title}
    train.fit(model, task, options, seed=seed, evaluate=lambda model: 0.0, **where, **more)


def keep(file: Path, model: nn.Module, *phases: Path) -> None:
    """Write what phases of training have led to, and remove their folders."""
    files.write_tensors(file, model.state_dict())
    for folder in phases:
        shutil.rmtree(folder, ignore_errors=True)


def top1(model: nn.Module, task: lz.Task, device: str) -> float:
    """On the test split."""
    model.to(device)
    value = lz.measure.evaluate(lz.deploy.load(model, runtime="pytorch"), task, progress=False).value
    model.to("cpu")
    return float(value)


def started(name: str, task: lz.Task, plan: Plan, seed: int, given: argparse.Namespace) -> nn.Module:
    """The trained model from which both roads go."""
    if name == "bert6":
        return artifact.load(given.bert).eval()
    if name == "resnet20":
        model = lz.model(name, weights=DATA / "cifar10" / f"{name}.safetensors")
    else:
        torch.manual_seed(seed)
        model = lz.model(ZOO.get(name, name), num_classes=10)
    file = given.start or given.work / name / f"start-{seed}.safetensors"
    if file.is_file():
        model.load_state_dict(
            {
                key: value.float() if value.is_floating_point() else value
                for key, value in files.read_tensors(file).items()
            }
        )
        return model.eval()
    if plan.first:
        phase = given.work / name / f"first-{seed}"
        fit(model, task, plan, plan.first, seed, given.device, phase)
        keep(file, model, phase)
    return model.eval()


def taught(teacher: nn.Module, task: lz.Task, alpha: float) -> train.Step:
    """The step of distillation from the dense model."""
    return distill.methods.kd.make_step(teacher, temperature=4.0, alpha=alpha, loss=task.loss)


def removed_of(kept: float | dict[str, float], names: Iterable[str]) -> tuple[float, str | dict[str, float]]:
    """What goes: a share of all weights by one threshold, or a share of each layer's."""
    if isinstance(kept, float):
        return 1 - kept, "global"
    return 0.0, {
        name: 1 - next(kept[pattern] for pattern in kept if fnmatch(name, pattern)) for name in names
    }


def pruned(
    model: nn.Module, step: train.Step, task: lz.Task, plan: Plan, seed: int, folder: Path, device: str
) -> None:
    """Prune while it learns. What comes out is on file, so that a run that was stopped goes on from there."""
    file = folder / f"pruned-{seed}.safetensors"
    if file.is_file():
        model.load_state_dict(files.read_tensors(file))
        return
    names = masks.weights_of(model)
    removed = removed_of(plan.kept, names)
    steps = round(plan.prune * task.steps("train", plan.options.get("batch_size", 128)))
    gradual = Gradual(
        model,
        list(names),
        lambda weights, share: masks_for(weights, *removed, share=share),
        updates=round(RAMP * steps),
        every=EVERY,
        feedback=plan.feedback,
    )
    phase, after = folder / f"prune-{seed}", gradual.after_step
    fit(model, task, plan, plan.prune, seed, device, phase, step=step, options=plan.pruning, after_step=after)
    gradual.finish(model)
    keep(file, model, phase)


def compressed(
    model: nn.Module, teacher: nn.Module, task: lz.Task, plan: Plan, seed: int, folder: Path, device: str
) -> nn.Module:
    """Prune, share, move, train the centroids; what comes out is on file."""
    file = folder / f"compressed-{seed}.safetensors"
    if file.is_file():
        model.load_state_dict(files.read_tensors(file))
        return model.eval()
    step = taught(teacher, task, plan.alpha)
    phases = [folder / f"{name}-{seed}" for name in ("move", "share")]
    pruned(model, step, task, plan, seed, folder, device)
    bits = bits_by_name(masks.weights_of(model), plan.bits)
    if plan.move:
        sharing.share(model, bits, moving=True)
        options: dict[str, Any] = {"lr": plan.move_rate, "weight_decay": 0.0}
        fit(
            model, task, plan, plan.move, seed + 50, device, phases[0],
            step=step, options=options, after_step=moving.follow,
        )  # fmt: skip
        sharing.bake(model)
    sharing.share(model, bits)
    options = {**CENTROIDS, "lr": plan.rate}
    fit(model, task, plan, plan.share, seed + 100, device, phases[1], step=step, options=options)
    sharing.bake(model).cpu().eval()
    keep(file, model, *phases)
    return model


def shown(bits: int | dict[str, int]) -> str:
    """Bits in a cell of a table."""
    return (
        str(bits) if isinstance(bits, int) else ", ".join(f"{name} {number}" for name, number in bits.items())
    )


def reference(dense: Sequence[float], start: Sequence[float]) -> float:
    """What the loss is counted from: the dense models' mean, or the trained model that both roads began with if that is better.

    >>> reference([0.88], [0.89]), reference([0.88, 0.9], [])
    (0.89, 0.89)
    """
    return max([statistics.mean(dense), *start])


def table(records: Records) -> str:
    """What is on record: means over the seeds, against the bars."""
    lines = [
        "| model | dense | compressed | lost | kept | bits | float32 | file | ratio | bar | seeds | the paper |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, plan in PLANS.items():
        dense = [row["top1"] for key, row in records.items() if key.startswith(f"{name} | dense | ")]
        rows = [row for key, row in records.items() if key.startswith(f"{name} | compressed | ")]
        if not dense or not rows:
            continue
        tops = [row["top1"] for row in rows]
        start = [row["top1"] for key, row in records.items() if key.startswith(f"{name} | start | ")]
        lost = 100 * (reference(dense, start) - statistics.mean(tops))
        ratio = statistics.mean(row["ratio"] for row in rows)
        good = ratio >= plan.bar and lost <= plan.most + 1e-9
        lines.append(
            f"| {name} | {statistics.mean(dense):.2%} | {spread(tops)} % | {lost:.2f} (at most {plan.most}) "
            f"| {statistics.mean(row['kept'] for row in rows):.1%} | {shown(rows[0]['bits'])} | {rows[0]['float_bytes']:,} "
            f"| {statistics.mean(row['bytes'] for row in rows):,.0f} | {ratio:.1f}x | {plan.bar}x "
            f"{'met' if good else 'MISSED'} | {len(rows)} | {plan.paper} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(PLANS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument(
        "--start", type=Path, help="weights from which both go on, in place of the first epochs"
    )
    parser.add_argument("--bert", type=Path, default=Path("out/sst2-teacher"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, default=WORK)
    trial_options(parser, f"{TRIAL} samples, one seed, one epoch of each phase")
    given = parser.parse_args()
    if given.model == "bert6" and not (given.bert / "architecture.json").is_file():
        parser.error(
            f"{given.bert} is no finished artifact; make it: lianzhi train recipes/sst2-teacher.yaml -o {given.bert}"
        )
    return given


def train_dense(
    name: str, task: lz.Task, plan: Plan, seed: int, file: Path, given: argparse.Namespace, records: Records
) -> None:
    """The model that is compressed, trained as long without being compressed; not again where its file is there."""
    key, dense = f"{name} | dense | seed {seed}", started(name, task, plan, seed, given)
    if file.is_file():
        if key in records:
            return
        dense.load_state_dict(files.read_tensors(file))
    else:
        epochs = plan.prune + plan.move + plan.share
        fit(dense, task, plan, epochs, seed, given.device, file.with_suffix(""))
        keep(file, dense, file.with_suffix(""))
    records.add(key, {"top1": top1(dense.eval(), task, given.device)})


def pack_and_measure(model: nn.Module, file: Path, task: lz.Task, plan: Plan, device: str) -> dict[str, Any]:
    """Write the container; what it says of its size, and the accuracy of the model that is read from it."""
    weights = masks.weights_of(model)
    kept = sum(int((weight != 0).sum()) for weight in weights.values())
    report = codebook.pack(model, file, example_inputs=task.example_inputs, other=plan.other)
    return {
        "top1": top1(lz.load(file), task, device),
        "bytes": file.stat().st_size,
        "float_bytes": round(report.ratio * report.bytes),
        "ratio": report.ratio,
        "kept": kept / sum(weight.numel() for weight in weights.values()),
        "bits": plan.bits,
        "device": device,
    }


def main() -> None:
    given = arguments()
    records = records_of("deep_compression", given)
    if given.model is None:
        print(table(records))
        return
    name, plan = given.model, PLANS[given.model]
    if given.trial:
        given.work, given.seeds, plan = given.work / "trial", [0], short(plan)
    task = task_of(name, given.bert, TRIAL if given.trial else None)
    folder = given.work / name
    files.make_folder(folder)
    one = name in ("resnet20", "vgg16", "bert6")  # one dense training serves all seeds
    key = f"{name} | start | seed 0"
    if not plan.first and key not in records:
        records.add(key, {"top1": top1(started(name, task, plan, 0, given), task, given.device)})
    for seed in [0] if one else given.seeds:
        train_dense(name, task, plan, seed, folder / f"dense-{seed}.safetensors", given, records)
    for seed in given.seeds:
        key = f"{name} | compressed | seed {seed}"
        if key in records:
            continue
        model = started(name, task, plan, 0 if one else seed, given)
        teacher = copy.deepcopy(model)
        teacher.load_state_dict(files.read_tensors(folder / f"dense-{0 if one else seed}.safetensors"))
        model = compressed(model, teacher.eval(), task, plan, seed, folder, given.device)
        records.add(key, pack_and_measure(model, folder / f"compressed-{seed}.lzc", task, plan, given.device))
        print(table(records), flush=True)
    print(table(records))


if __name__ == "__main__":
    main()
