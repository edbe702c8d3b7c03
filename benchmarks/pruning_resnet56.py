"""ResNet-56 on CIFAR-10: structured pruning against Torch-Pruning, in one run, with the same fine-tuning.

    make bench-pruning                    # every seed; a run that is on record is not done again
    python benchmarks/pruning_resnet56.py --seeds 1 --epochs 1

The dense model (published weights) is fine-tuned once on the training part (see `--dense-epochs`). From it, a seed
and a reduction at a time: Lianzhi's plan and Torch-Pruning's (group magnitude, global ranking) are fine-tuned by
the same loop, with the same options, order and augmentation; then Lianzhi's once more with distillation. Torch-Pruning
cannot follow the zero-padded shortcuts (its model does not run), so it may not touch the residual stream.

Top-1 is of the test split, which nothing is chosen by. Speed-ups are of ONNX Runtime float32 at batch 64, original
and pruned timed in turns.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from records import Records
from torch import nn

import lianzhi as lz
from lianzhi import deploy, distill, files, train

IMAGE = torch.zeros(1, 3, 32, 32)
STREAM = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
METHODS = ("lianzhi", "torch-pruning", "lianzhi + kd")


def fine_tuned(task: lz.Task, data: Path, epochs: float, work: Path) -> nn.Module:
    """The dense model on this copy of the data, trained once and kept in the work folder."""
    model = lz.model("resnet56", weights=data / "cifar10" / "resnet56.safetensors")
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


def by_lianzhi(dense: nn.Module, reduction: float, task: lz.Task, seed: int) -> nn.Module:
    """The channels inside blocks, ranked together by the first-order Taylor term on training images."""
    batches = task.batches("calibration", 128)
    plan = lz.prune.plan(
        dense,
        IMAGE,
        macs=1 / reduction,
        criterion="taylor",
        scope="global",
        calibration=[(batch.inputs, batch.labels) for batch in batches],
        loss=task.loss,
        ignore=STREAM,
    )
    if plan.verify() > 1e-5:
        raise SystemExit("the surgery is not exact")
    return plan.apply()


def by_torch_pruning(dense: nn.Module, reduction: float, task: lz.Task, seed: int) -> nn.Module:
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
        pruner.step()
    return model


def speed_up(dense: Path, pruned: Path, batch: int = 64, rounds: int = 15) -> float:
    """Median, over rounds, of the time of the dense file over that of the pruned one, timed in turns."""
    images = torch.zeros(batch, 3, 32, 32)
    sessions = [deploy.load(file, runtime="onnxruntime", precision="f32") for file in (dense, pruned)]

    def once(session: object) -> float:
        start = time.perf_counter()
        session(images)  # type: ignore[operator]
        return time.perf_counter() - start

    for session in sessions:
        once(session)
    return statistics.median(once(sessions[0]) / once(sessions[1]) for _ in range(rounds))


def run(
    method: str, reduction: float, seed: int, dense: nn.Module, task: lz.Task, epochs: float, work: Path
) -> dict:
    """Prune, fine-tune, evaluate, time."""
    start = time.perf_counter()
    prune = by_torch_pruning if method == "torch-pruning" else by_lianzhi
    model = prune(dense, reduction, task, seed)
    step = None
    if method.endswith("kd"):
        step = distill.methods.registry.get("kd").build(dense, temperature=4.0, alpha=0.9, loss=task.loss)
    seconds = time.perf_counter() - start
    train.fit(
        model,
        task,
        options(epochs, lr=0.05),
        step=step,
        seed=seed,
        title=f"{method} {reduction}x seed {seed}",
    )
    paths = [work / "dense.onnx", work / "pruned.onnx"]
    for path, module in zip(paths, (dense, model), strict=True):
        deploy.export_onnx(module, IMAGE, path)
    return {
        "top1": lz.measure.evaluate(model, task).value,
        "reduction": lz.measure.macs(dense, IMAGE) / lz.measure.macs(model, IMAGE),
        "parameters": lz.measure.parameters(model),
        "speed_up": speed_up(*paths),
        "prune_seconds": seconds,
        "epochs": epochs,
    }


def table(records: Records) -> str:
    """Mean ± deviation over the seeds on record."""
    lines = ["| method | MACs | top-1 | seeds | ONNX Runtime f32, batch 64 |", "|---|---|---|---|---|"]
    if "dense" in records:
        lines.append(f"| dense, fine-tuned | 1× | {records['dense']['top1']:.2%} | | 1× |")
    for reduction in sorted({key.split(" | ")[1] for key, _ in records.items() if " | " in key}):
        for method in METHODS:
            found = [r for key, r in records.items() if key.startswith(f"{method} | {reduction} |")]
            if found:
                top = [record["top1"] for record in found]
                spread = f" ± {100 * statistics.stdev(top):.2f}" if len(top) > 1 else ""
                fast = statistics.mean(record["speed_up"] for record in found)
                less = statistics.mean(record["reduction"] for record in found)
                lines.append(
                    f"| {method} | {less:.2f}× less | {100 * statistics.mean(top):.2f}{spread} | {len(top)} | {fast:.2f}× |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIANZHI_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("out/pruning_resnet56"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--dense-epochs", type=float, default=2)
    parser.add_argument("--reductions", type=float, nargs="+", default=[2.1, 2.57])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    given = parser.parse_args()
    task = lz.task("cifar10", data=given.data / "cifar10")
    records = Records("pruning_resnet56")
    dense = fine_tuned(task, given.data, given.dense_epochs, given.work)
    if "dense" not in records:
        records.add("dense", {"top1": lz.measure.evaluate(dense, task).value})
    for seed in range(given.seeds):
        for reduction in given.reductions:
            for method in given.methods:
                key = f"{method} | {reduction:g} | {seed} | {given.epochs:g} epochs"
                if key not in records:
                    records.add(key, run(method, reduction, seed, dense, task, given.epochs, given.work))
                    print(key, records[key], file=sys.stderr)
    print(table(records))


if __name__ == "__main__":
    main()
