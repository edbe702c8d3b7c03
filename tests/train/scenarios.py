"""Training runs that end the same in one process and in two. Run as a script under torchrun, or imported."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from fake import FakeTask
from safetensors.torch import save_file
from torch import Tensor, nn

from lianzhi import train
from lianzhi.codebook.allocation import masks_for
from lianzhi.codebook.gradual import Gradual
from lianzhi.codebook.masks import weights_of
from lianzhi.errors import TrainingError
from lianzhi.tasks import Batch
from lianzhi.train import precision


class AtenBatchNorm(nn.Module):
    """Batch norm as a captured graph calls it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)
        self.bias = nn.Parameter(torch.rand(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.ops.aten.batch_norm.default(
            inputs, self.weight, self.bias, self.mean, self.var, self.training, 0.1, 1e-5, True
        )


class Named(nn.Module):
    """A model that a step must see as it is, with attributes of its own and a layer that is not used."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.unused = nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs)


def network(kind: str) -> nn.Module:
    torch.manual_seed(3)
    norm = {"module": nn.BatchNorm2d, "aten": AtenBatchNorm}[kind]
    return Named(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        norm(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2),
        norm(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


def in_double(task: FakeTask, model: nn.Module) -> tuple[FakeTask, nn.Module]:
    task.parts = {name: (inputs.double(), labels) for name, (inputs, labels) in task.parts.items()}
    task.example_inputs = task.example_inputs.double()
    return task, model.double()


def gradients(
    kind: str, *, samples: int, batch: int, accumulate: int = 1, double: bool = True
) -> dict[str, Tensor]:
    """Gradients of every step, and the weights and running statistics that they lead to."""
    task = FakeTask(samples=samples, shape=(2, 6, 6))
    model = network(kind)
    if double:
        in_double(task, model)
    seen: dict[str, Tensor] = {}
    steps = []

    def note(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                seen[f"gradient/{len(steps)}/{name}"] = parameter.grad.clone().contiguous()
        steps.append(1)

    options = train.TrainOptions(epochs=1, batch_size=batch, accumulate=accumulate, lr=0.05, keep="last")
    history = train.fit(model, task, options, progress=False, after_step=note)
    seen["loss"] = torch.tensor([history.epochs[0]["loss"], history.epochs[0]["metric"]], dtype=torch.float64)
    return {**seen, **{f"model/{name}": value.contiguous() for name, value in model.state_dict().items()}}


def pruned() -> dict[str, Tensor]:
    """The masks of pruning by what removing costs, which are made of the gradients of all processes."""
    task, model = in_double(FakeTask(samples=41, shape=(2, 6, 6)), network("module"))
    names = list(weights_of(model.body))
    gradual = Gradual(
        model.body,
        names,
        lambda weights, share: masks_for(weights, 0.7, "global", share=share),
        updates=12,
        every=3,
        criterion="hessian",
    )
    options = train.TrainOptions(epochs=3, batch_size=8, lr=0.02, keep="last")
    train.fit(model, task, options, progress=False, after_step=lambda model: gradual.after_step(model.body))
    return gradual.finish(model.body)


def whole_run(folder: Path, *, resume: bool = False, max_steps: int | None = None) -> dict[str, Tensor]:
    """A longer run, with the best epoch kept."""
    task = FakeTask(samples=41, shape=(2, 6, 6), noise=2.0)
    model = network("module")
    options = train.TrainOptions(epochs=4, batch_size=8, lr=0.02, max_steps=max_steps)
    history = train.fit(model, task, options, progress=False, directory=folder, resume=resume)
    result = {f"model/{name}": value.contiguous() for name, value in model.state_dict().items()}
    return {
        **result,
        "metrics": torch.tensor([entry["metric"] for entry in history.epochs], dtype=torch.float64),
    }


def poisoned() -> dict[str, Tensor]:
    """A NaN that only one process sees."""
    task = FakeTask(samples=16, shape=(2, 6, 6), poison=5)
    try:
        train.fit(network("module"), task, train.TrainOptions(epochs=2, batch_size=4), progress=False)
    except TrainingError as error:
        return {"message": torch.tensor(list(str(error).encode()))}
    return {}


def chosen(rank: int) -> dict[str, Tensor]:
    """The precision that `auto` becomes where only the processor of process 1 would be quicker in bf16."""
    precision.has_bf16 = lambda device: rank == 1
    precision.gains = lambda threads: True
    kinds = []

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        kinds.append(torch.is_autocast_enabled("cpu"))
        return {"loss": nn.functional.cross_entropy(model(batch.inputs), batch.labels)}

    options = train.TrainOptions(epochs=1, batch_size=8, precision="auto")
    train.fit(network("module"), FakeTask(samples=16, shape=(2, 6, 6)), options, step=step, progress=False)
    return {"bf16": torch.tensor(kinds)}


GRADIENTS = {
    "even": {"kind": "module", "samples": 8, "batch": 8},
    "uneven": {"kind": "module", "samples": 19, "batch": 7},
    "lonely": {"kind": "module", "samples": 9, "batch": 4},
    "aten": {"kind": "aten", "samples": 9, "batch": 4},
    "accumulated": {"kind": "module", "samples": 23, "batch": 4, "accumulate": 3},
    "single": {"kind": "module", "samples": 19, "batch": 7, "double": False},
}


def main(folder: Path) -> None:
    rank, world = train.start_processes()
    assert world == 2
    for name, options in GRADIENTS.items():
        save_file(gradients(**options), folder / f"{name}-{rank}.safetensors")
    save_file(whole_run(folder / "run"), folder / f"run-{rank}.safetensors")
    save_file(whole_run(folder / "run", resume=True), folder / f"reopened-{rank}.safetensors")
    save_file(pruned(), folder / f"pruned-{rank}.safetensors")
    save_file(poisoned(), folder / f"poisoned-{rank}.safetensors")
    save_file(chosen(rank), folder / f"chosen-{rank}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
