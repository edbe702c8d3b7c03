"""ResNet-56 on CIFAR-10: structured pruning against Torch-Pruning, in one run, with the same fine-tuning.

    make bench-pruning                    # every seed; a run that is on record is not done again
    python benchmarks/pruning_resnet56.py --seeds 0 --epochs 1
    python benchmarks/pruning_resnet56.py --choose      # ways of ranking, by the part cut off for validation

The dense model (published weights) is fine-tuned once on the training part (see `--dense-epochs`). From it, a seed
and a reduction at a time: Lianzhi's plan and Torch-Pruning's (group magnitude, global ranking) are fine-tuned by
the same loop, with the same options, order and augmentation; then Lianzhi's once more with distillation. Torch-Pruning
cannot follow the zero-padded shortcuts (its model does not run), so it may not touch the residual stream; nor does
Lianzhi here.

Top-1 is of the test split, which nothing is chosen by: how Lianzhi ranks was chosen by `--choose`. Speed-ups are of
ONNX Runtime float32 at batch 64, original and pruned timed in turns, after all training: on a quiet machine.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from records import Records, records_of, spread, trial_options
from torch import nn

import lianzhi as lz
from lianzhi import distill, files, train

IMAGE = torch.zeros(1, 3, 32, 32)
STREAM = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
TRIAL = 256
METHODS = ("lianzhi", "torch-pruning", "lianzhi + kd")
RANKINGS: dict[str, dict[str, Any]] = {
    "taylor": {"criterion": "taylor"},
    "taylor, a MAC": {"criterion": "taylor", "normalize": "cost"},
    "path norm, over the layer's mean, 12 rounds": {
        "criterion": "path_norm",
        "normalize": "mean",
        "rounds": 12,
    },
    "taylor, a MAC, 4 rounds": {"criterion": "taylor", "normalize": "cost", "rounds": 4},
    "taylor, a MAC, 12 rounds": {"criterion": "taylor", "normalize": "cost", "rounds": 12},
    "l2, over the layer's mean, 12 rounds": {"criterion": "l2", "normalize": "mean", "rounds": 12},
    "l2, a MAC, 12 rounds": {"criterion": "l2", "normalize": "cost", "rounds": 12},
    "taylor, over the layer's mean": {"criterion": "taylor", "normalize": "mean"},
    "taylor, layer by layer": {"criterion": "taylor", "scope": "layer"},
    "taylor, a MAC, 70 % of a layer at most": {
        "criterion": "taylor",
        "normalize": "cost",
        "max_layer_ratio": 0.7,
    },
    "hessian, over the layer's mean": {"criterion": "hessian", "normalize": "mean"},
    "l2, layer by layer": {"criterion": "l2", "scope": "layer"},
    "fpgm, layer by layer": {"criterion": "fpgm", "scope": "layer"},
    "taylor, a MAC, widths of 4": {"criterion": "taylor", "normalize": "cost", "round_to": 4},
    "taylor, a MAC, widths of 8": {"criterion": "taylor", "normalize": "cost", "round_to": 8},
    "hessian, a MAC": {"criterion": "hessian", "normalize": "cost"},
    "l2, a MAC": {"criterion": "l2", "normalize": "cost"},
    "l2, over the layer's mean": {"criterion": "l2", "normalize": "mean"},
    "taylor, a MAC, residual stream too": {"criterion": "taylor", "normalize": "cost", "ignore": ()},
}
CHOSEN = "path norm, over the layer's mean, 12 rounds"


def fine_tuned(task: lz.Task, data: Path, epochs: float, work: Path) -> nn.Module:
    """The dense model on this copy of the data, trained once and kept in the work folder."""
    model = lz.model("resnet56", weights=data / "cifar10" / "resnet56.safetensors")
    if not epochs:
        return model
    file = work / f"dense-{epochs:g}.safetensors"
    if file.is_file():
        model.load_state_dict(files.read_tensors(file))
        return model
    train.fit(model, task, options(epochs, lr=0.02), title="dense")
    files.make_folder(work)
    files.write_tensors(file, model.state_dict())
    return model


def options(epochs: float, *, lr: float) -> train.TrainOptions:
    """The same for everyone."""
    return train.TrainOptions(
        epochs=epochs, lr=lr, batch_size=128, weight_decay=1e-4, precision="auto", keep="last"
    )


def by_lianzhi(dense: nn.Module, reduction: float, task: lz.Task, ranking: str = CHOSEN) -> nn.Module:
    """Channels are ranked together, in rounds; criteria that read data see 1,024 training images."""
    given = {"ignore": STREAM, "scope": "global", "rounds": 1, **RANKINGS[ranking]}
    batches = [(batch.inputs, batch.labels) for batch in task.batches("calibration", 128)]
    if given["criterion"] in ("taylor", "hessian"):
        given |= {"calibration": batches, "loss": task.loss}
    base, widths, model = lz.measure.macs(dense, IMAGE), None, dense
    for share in lz.prune.shares(given.pop("rounds"), "linear"):
        remain = 1 - (1 - 1 / reduction) * share
        macs = remain * base / lz.measure.macs(model, IMAGE)
        plan = lz.prune.plan(model, IMAGE, macs=macs, dense=widths, **given)
        if plan.verify() > 1e-5:
            raise SystemExit("the surgery is not exact")
        widths = widths or {group.name: len(group) for group in plan.groups.groups}
        model = plan.apply()
        lz.prune.reestimate(model, [images for images, _ in batches])
    return model


def by_torch_pruning(dense: nn.Module, reduction: float, task: lz.Task) -> nn.Module:
    """Group magnitude, ranked globally, in small steps until the reduction is reached: its own way."""
    import torch_pruning as tp

    model = copy.deepcopy(dense).eval()
    stream = [module for name, module in model.named_modules() if name == "conv1" or name.endswith("conv2")]
    pruner = tp.pruner.BasePruner(
        model,
        torch.randn(1, 3, 32, 32),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=0.9,
        max_pruning_ratio=0.9,
        iterative_steps=400,
        ignored_layers=[model.linear, *stream],
    )
    base = lz.measure.macs(dense, IMAGE)
    while base / lz.measure.macs(model, IMAGE) < reduction:
        for _ in range(1 if _near(tp, dense, model, reduction) else 10):
            pruner.step()
    return model


def _near(tp: Any, dense: nn.Module, model: nn.Module, reduction: float) -> bool:
    """Whether Torch-Pruning's own, quick count of operations is within a tenth of the reduction."""
    before, after = (tp.utils.count_ops_and_params(each, IMAGE)[0] for each in (dense, model))
    return before / after > 0.9 * reduction


def recover(
    model: nn.Module, dense: nn.Module | None, task: lz.Task, epochs: float, seed: int, title: str
) -> None:
    """Fine-tune in place, by the labels or, with a teacher, by distillation."""
    step = None
    if dense is not None:
        step = distill.methods.kd.make_step(dense, temperature=4.0, alpha=0.9, loss=task.loss)
    train.fit(model, task, options(epochs, lr=0.05), step=step, seed=seed, title=title)


def run(method: str, reduction: float, seed: int, dense: nn.Module, task: lz.Task, epochs: float) -> dict:
    """Prune, fine-tune, evaluate."""
    start = time.perf_counter()
    model = (by_torch_pruning if method == "torch-pruning" else by_lianzhi)(dense, reduction, task)
    seconds = time.perf_counter() - start
    teacher = dense if method.endswith("kd") else None
    recover(model, teacher, task, epochs, seed, f"{method} {reduction:g}x seed {seed}")
    return {
        "top1": lz.measure.evaluate(model, task).value,
        "reduction": lz.measure.macs(dense, IMAGE) / lz.measure.macs(model, IMAGE),
        "parameters": lz.measure.parameters(model),
        "prune_seconds": seconds,
    }


def timed(method: str, reduction: float, dense: nn.Module, task: lz.Task) -> dict:
    """The speed-up of a method's widths; distillation changes none."""
    model = (by_torch_pruning if method == "torch-pruning" else by_lianzhi)(dense, reduction, task)
    share = lz.prune.latency_share(dense, model, IMAGE, target="onnxruntime", batch=64)
    return {"speed_up": 1 / share}


def choose(
    dense: nn.Module,
    task: lz.Task,
    records: Records,
    epochs: float,
    reduction: float,
    rankings: Sequence[str],
) -> str:
    """Every ranking, and Torch-Pruning's, pruned and fine-tuned for a while, by the part cut off from the training data."""
    lines = ["| ranking | validation top-1 |", "|---|---|"]
    for ranking in rankings:
        key = f"choice: {ranking} | {reduction:g} | {epochs:g} epochs"
        if key not in records:
            if ranking == "torch-pruning":
                model = by_torch_pruning(dense, reduction, task)
            else:
                model = by_lianzhi(dense, reduction, task, ranking)
            recover(model, None, task, epochs, 0, ranking)
            records.add(key, {"validation": lz.measure.evaluate(model, task, split="validation").value})
        lines.append(f"| {ranking} | {records[key]['validation']:.2%} |")
    return "\n".join(lines)


def table(records: Records, reductions: list[float], epochs: float) -> str:
    """Mean ± deviation over the seeds on record."""
    lines = ["| method | MACs | top-1 | seeds | ONNX Runtime f32, batch 64 |", "|---|---|---|---|---|"]
    lines.append(f"| dense, fine-tuned | 1× | {records['dense']['top1']:.2%} | | 1× |")
    for reduction in reductions:
        for method in METHODS:
            start, end = f"{method} | {reduction:g} | ", f" | {epochs:g} epochs"
            found = [record for key, record in records.items() if key.startswith(start) and key.endswith(end)]
            if found:
                top = [record["top1"] for record in found]
                speed = f"speed: {method.removesuffix(' + kd')} | {reduction:g}"
                fast = f"{records[speed]['speed_up']:.2f}×" if speed in records else "not timed"
                less = statistics.mean(record["reduction"] for record in found)
                lines.append(f"| {method} | {less:.2f}× less | {spread(top)} | {len(top)} | {fast} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIANZHI_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("out/pruning_resnet56"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--dense-epochs", type=float, default=2)
    parser.add_argument("--reductions", type=float, nargs="+", default=[2.1, 2.57])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument(
        "--choose", nargs="*", help="compare ways of ranking (default: all), by validation data"
    )
    parser.add_argument("--no-speed", action="store_true", help="time nothing (the machine is busy)")
    trial_options(parser, f"{TRIAL} images, one seed, one reduction and epoch, no speed")
    given = parser.parse_args()
    if given.trial:
        given.seeds, given.epochs, given.dense_epochs, given.no_speed = [0], 1, 0, True
        given.reductions = given.reductions[:1]
        if importlib.util.find_spec("torch_pruning") is None:
            print("torch_pruning is not installed: left out")
            given.methods = [method for method in given.methods if method != "torch-pruning"]
    task = lz.task("cifar10", data=given.data / "cifar10", limit=TRIAL if given.trial else None)
    records = records_of("pruning_resnet56", given)
    dense = fine_tuned(task, given.data, given.dense_epochs, given.work)
    if "dense" not in records:
        records.add("dense", {"top1": lz.measure.evaluate(dense, task).value})
    if given.choose is not None:
        rankings = given.choose or [*RANKINGS, "torch-pruning"]
        print(choose(dense, task, records, 0.5, given.reductions[-1], rankings))
        return
    for seed in given.seeds:
        for reduction in given.reductions:
            for method in given.methods:
                key = f"{method} | {reduction:g} | {seed} | {given.epochs:g} epochs"
                if key not in records:
                    records.add(key, run(method, reduction, seed, dense, task, given.epochs))
                    print(key, records[key], file=sys.stderr)
    for reduction in [] if given.no_speed else given.reductions:
        for method in ("lianzhi", "torch-pruning"):
            key = f"speed: {method} | {reduction:g}"
            if key not in records:
                records.add(key, timed(method, reduction, dense, task))
    print(table(records, given.reductions, given.epochs))


if __name__ == "__main__":
    main()
