"""Deep Compression, file sizes and accuracy over three seeds: LeNets on Fashion-MNIST, ResNet-20 and VGG-16 on CIFAR-10,
a 6-layer BERT on SST-2.

    python benchmarks/deep_compression.py --model lenet_300_100
    python benchmarks/deep_compression.py --model vgg16 --device cuda --start out/vgg16.safetensors
    python benchmarks/deep_compression.py --model bert6 --bert out/sst2-teacher
    python benchmarks/deep_compression.py                       # the table of what is on record, the paper's beside it

A model is trained; then one copy goes on training for so many epochs (the dense model that is compared with), and another is
pruned by magnitude along a cubic schedule, its weights are shared, move between the shared values, and these are trained, in
the same number of epochs, with the same optimizer and augmentation. Of BERT nothing is pruned before: its weights are shared by
rate, with zero among the values. The only teacher is the dense model; of BERT the trained model that both begin with, whose
layers teach those of the copy one by one. The file is what `lz.codebook.pack` writes; top-1 is that of
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
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from compression_plans import ONE_DENSE, PLANS, ZOO, Plan, short
from records import Records, records_of, spread, trial_options
from torch import nn

import lianzhi as lz
from lianzhi import artifact, codebook, distill, files, train
from lianzhi.codebook import masks, moving, rated, sharing
from lianzhi.codebook.allocation import masks_for
from lianzhi.codebook.bits import bits_by_name
from lianzhi.codebook.gradual import Gradual
from lianzhi.distill.methods import layerwise

DATA = Path(os.environ.get("LIANZHI_DATA", Path(__file__).parents[2] / "shared" / "data"))
WORK = Path("out/deep_compression")
RAMP = 0.7  # of the epochs of pruning, until the sparsity is reached
TRIAL = 1024
EVERY = 50  # updates between two looks at the magnitudes
CENTROIDS = {"optimizer": "adam", "weight_decay": 0.0}
TEMPERATURE = 4.0


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


def taught(teacher: nn.Module, task: lz.Task, plan: Plan) -> train.Step:
    """The step of distillation: softened probabilities, labels, and what is computed inside if the plan looks there."""
    how: dict[str, Any] = {"temperature": TEMPERATURE, "alpha": plan.alpha, "loss": task.loss}
    if not plan.layers:
        return distill.methods.kd.make_step(teacher, **how)
    first = next(iter(task.batches("train", plan.options.get("batch_size", 128))))
    squares = layerwise.mean_squares(teacher, first.inputs, plan.layers)
    return layerwise.make_step(teacher, squares, weight=plan.weight, **how)


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
        criterion=plan.criterion,
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
    step = taught(teacher, task, plan)
    phases = [folder / f"{name}-{seed}" for name in ("move", "share")]
    if plan.prune:
        pruned(model, step, task, plan, seed, folder, device)
    names = masks.weights_of(model)
    how = {"rate" if plan.rated else "bits": bits_by_name(names, plan.bits)}
    if plan.move:
        sharing.share(model, **how, moving=True)
        options: dict[str, Any] = {"lr": plan.move_rate, "weight_decay": 0.0}
        fit(
            model, task, plan, plan.move, seed + 50, device, phases[0],
            step=step, options=options, after_step=moving.follow,
        )  # fmt: skip
        sharing.bake(model)
        how = {"bits": dict.fromkeys(names, rated.BITS)} if plan.rated else how  # values that are left stay
    sharing.share(model, **how)
    options = {**CENTROIDS, "lr": plan.rate}
    fit(model, task, plan, plan.share, seed + 100, device, phases[1], step=step, options=options)
    sharing.bake(model).cpu().eval()
    keep(file, model, *phases)
    return model


def shown(bits: float | dict[str, float]) -> str:
    """Bits in a cell of a table."""
    return (
        str(bits)
        if not isinstance(bits, dict)
        else ", ".join(f"{name} {number}" for name, number in bits.items())
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
    one = name in ONE_DENSE
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
        if plan.teacher == "dense":
            teacher.load_state_dict(files.read_tensors(folder / f"dense-{0 if one else seed}.safetensors"))
        model = compressed(model, teacher.eval(), task, plan, seed, folder, given.device)
        records.add(key, pack_and_measure(model, folder / f"compressed-{seed}.lzc", task, plan, given.device))
        print(table(records), flush=True)
    print(table(records))


if __name__ == "__main__":
    main()
