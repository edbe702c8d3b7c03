"""Write the OneFlow checkpoints that the tests read, by the real OneFlow 0.9.0 (docs/oneflow.md says how it is installed).

    python tests/models/checkpoints/make_oneflow.py

Beside each folder lies an .npz of what it holds, as OneFlow itself says (bfloat16 as float32, which numpy has not).
"""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import oneflow as flow
from oneflow.framework import check_point_v2

HERE = Path(__file__).parent / "data" / "oneflow"
TYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"]
SHAPES = [(), (0,), (2, 0, 3), (1,)]
SCALE = flow.tensor([0.5, 2.0])  # a graph that uses it has it in its state as FreeEagerTensor-…


class Net(flow.nn.Module):
    """A convolution, BatchNorm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = flow.nn.Conv2d(1, 2, 3, bias=False)
        self.bn = flow.nn.BatchNorm2d(2)
        self.fc = flow.nn.Linear(2, 3)

    def forward(self, images: flow.Tensor) -> flow.Tensor:
        """Logits."""
        return self.fc(flow.relu(self.bn(self.conv(images))).mean(dim=(2, 3)))


class Training(flow.nn.Graph):
    """A step of training, compiled: its state has what Adam keeps too."""

    def __init__(self, net: flow.nn.Module) -> None:
        super().__init__()
        self.net = net
        self.add_optimizer(flow.optim.Adam(net.parameters(), lr=0.1))

    def build(self, inputs: flow.Tensor) -> flow.Tensor:
        """The loss."""
        loss = (self.net(inputs) * SCALE).sum()
        loss.backward()
        return loss


def save(name: str, value: object, expected: dict[str, flow.Tensor], **options: int) -> None:
    """Save by OneFlow, and what it holds as numbers."""
    flow.save(value, str(HERE / name), **options)
    note(name, expected)


def note(name: str, expected: dict[str, flow.Tensor]) -> None:
    """The numbers alone."""
    np.savez(HERE / f"{name}.npz", **{key: tensor.numpy() for key, tensor in expected.items()})


def snapshot(name: str, variables: dict[str, flow.Tensor]) -> None:
    """The form of the lazy graphs, which 0.9 reads and no longer writes as a whole: variable by variable, by its writer."""
    for key, tensor in variables.items():
        check_point_v2._save_tensor_to_disk(tensor, HERE / name / key)
    (HERE / name / "snapshot_done").touch()
    if not any("/" in key for key in variables):
        read = flow.load(str(HERE / name))
        assert sorted(read) == sorted(variables)


def one_file(name: str, value: object, expected: dict[str, flow.Tensor]) -> None:
    """The form that `oneflow.save` has after 0.9, unless told otherwise: the pickle of the tensors themselves."""
    (HERE / name).write_bytes(pickle.dumps({"protocol_version": 1, "oneflow": None, "data": value}))
    note(name, expected)


def one_files() -> None:
    """A state dict of every type and order in memory, and one in a training's checkpoint."""
    weight = flow.nn.Parameter(flow.randn(2, 3))
    state = {
        "weight": weight,
        "tied": weight,
        "turned": flow.randn(2, 3, 4).permute(2, 0, 1),
        **{kind: (flow.arange(5) - 2).to(getattr(flow, kind)) for kind in TYPES if kind != "bool"},
        "bool": flow.arange(5) > 2,
        **{f"shape {shape}": flow.ones(shape) * 0.5 for shape in SHAPES},
    }
    one_file("one_file", state, state)
    spread = flow.randn(2).to_global(placement=flow.placement("cpu", [0]), sbp=flow.sbp.broadcast)
    layer = flow.nn.Linear(3, 2)
    whole = {"model": {**layer.state_dict(), "spread": spread}, "epoch": 3, "history": np.ones(4)}
    one_file("one_file.pt", whole, {**layer.state_dict(), "spread": spread.to_local()})


def main() -> None:
    """Write them all."""
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    flow.manual_seed(0)
    net = Net()
    net(flow.randn(4, 1, 6, 6))
    save("module", net.state_dict(), net.state_dict())

    layer, inputs = flow.nn.Linear(3, 2), flow.randn(4, 3)
    optimizer = flow.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(inputs).sum().backward()
    optimizer.step()
    state = layer.state_dict()
    whole = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "rate": 0.1,
        "note": "best",
        "none": None,
    }
    save("checkpoint", whole, state)
    save("optimizer", optimizer.state_dict(), {})
    save("single", flow.ones(2), {})

    types = {kind: (flow.randn(2, 3) * 9).to(getattr(flow, kind)) for kind in TYPES}
    types["bool"] = types["float32"] > 0
    types |= {f"shape {shape}": flow.ones(shape) * 0.5 for shape in SHAPES}
    save("types", types, types)

    weight = flow.nn.Parameter(flow.randn(2, 3))
    tied = {"a/b.weight": weight, "同名 ✓": weight, "": flow.ones(1), "bias": weight.detach()}
    save("names", tied, tied)

    ranks = {"placement": flow.placement("cpu", [0]), "sbp": flow.sbp.broadcast}
    spread = {"fc.weight": flow.randn(2, 3).to_global(**ranks), "fc.bias": flow.randn(2).to_global(**ranks)}
    save("global", spread, {key: value.to_local() for key, value in spread.items()}, global_dst_rank=0)

    layer = flow.nn.Linear(3, 2)
    training = Training(layer)
    training(inputs)
    save("graph_state", training.state_dict(), layer.state_dict())
    save("graph", training, layer.state_dict())

    kept = {"conv1-weight": flow.randn(2, 1, 3, 3), "dense-v": flow.randn(3)}
    rest = {"conv1-weight-m": flow.zeros(2, 1, 3, 3), "conv1-weight-v": flow.zeros(2, 1, 3, 3)}
    snapshot("snapshot", {**kept, **rest, "System-Train-TrainStep-job": flow.ones(1)})
    note("snapshot", kept)
    nested = {"bert/layer_0/weight": flow.randn(2, 2), "bert/layer_0/weight-m": flow.zeros(2, 2)}
    snapshot("nested", nested)
    note("nested", {"bert/layer_0/weight": nested["bert/layer_0/weight"]})
    one_files()


if __name__ == "__main__":
    main()
