"""Rows that a mask picks: taken by their place where a graph asks for the last ones, and refused where the data decide the size."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lianzhi import artifact, measure
from lianzhi.errors import ArtifactError, GraphError
from lianzhi.graph import capture


class Picks(nn.Module):
    """The rows of a token that stands in every sample, as classifiers of the transformers library pick the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = self.table(ids)[ids.eq(1), :].view(ids.shape[0], -1, 6)
        return self.head(rows[:, -1])


def test_the_last_of_the_rows_that_a_mask_picks_is_taken_by_its_place(tmp_path):
    model = Picks().eval()
    artifact.save(model, tmp_path / "m", example_inputs=torch.tensor([[4, 5, 1]]))
    found = artifact.load(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "architecture.json").read_text())["outputs"]["leaves"] == [
        {"shape": [1, 2], "dtype": "float32"}
    ]
    ids = torch.tensor([[1, 2, 3, 1], [4, 1, 5, 5], [1, 1, 7, 1]])  # two a sample, but not in each
    one_by_one = torch.cat([model(row[None]) for row in ids])
    torch.testing.assert_close(found(ids), one_by_one)


class Less(nn.Module):
    """Makes a tensor that is the larger the fewer rows a mask picks: a file of it could ask for any amount of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.register_buffer("weight", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = 4 - self.weight[self.weight.gt(0)].shape[0]
        return self.head(x) + torch.zeros([left * 10**9]).sum()


class Kept(nn.Module):
    """Rows that a mask picks, as many in each sample: nobody but the data knows how many."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids)[ids.eq(1)]).view(ids.shape[0], -1, 2).mean(1)


@pytest.mark.parametrize(("make", "inputs"), [(Less, torch.zeros(1, 4)), (Kept, torch.tensor([[4, 5, 1]]))])
def test_what_is_as_large_as_the_data_say_is_not_saved(make, inputs, tmp_path):
    with pytest.raises(
        ArtifactError, match=r"how much aten\.index\.Tensor makes of its input is up to the data"
    ):
        artifact.save(make().eval(), tmp_path / "m", example_inputs=inputs)
    assert not (tmp_path / "m").exists()
    with pytest.raises(GraphError, match=r"could not be saved when it is compressed: .* is up to the data"):
        artifact.check_savable(make().eval(), inputs)


def test_products_on_rows_that_the_data_pick_are_not_counted():
    with pytest.raises(GraphError, match=r"depends on the data .* neither counted nor changed"):
        measure.macs(Kept().eval(), torch.tensor([[4, 5, 1]]))


class Dead(nn.Module):
    """Draws numbers that nobody reads, and others."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        return self.head(x) + torch.rand(4)


def test_numbers_that_are_drawn_stay_those_of_the_seed(tmp_path):
    model, x = Dead().eval(), torch.zeros(1, 4)
    artifact.save(model, tmp_path / "m", example_inputs=x)
    drawn = []
    for one in (model, artifact.load(tmp_path / "m")):
        torch.manual_seed(3)
        drawn.append(one(x))
    assert torch.equal(*drawn)


class Squeezes(nn.Module):
    """One dimension, two, or none is left out."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = x if self.count == 0 else x[:, :1] if self.count == 1 else x[:, None, :1]
        return chosen.squeeze() + (x if self.count == 0 else x[:, 1])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_squeeze_leaves_the_batch_alone(count):
    captured = capture(Squeezes(count), torch.zeros(1, 3))
    for batch in (1, 2, 3):
        x = torch.randn(batch, 3)
        assert torch.equal(captured.module(x), x + x if count == 0 else x[:, 0] + x[:, 1])
