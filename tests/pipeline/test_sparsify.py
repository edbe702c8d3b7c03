"""The step `sparsify`: what its penalty is, that it shrinks, and where there is nothing to shrink."""

import pytest
import torch
from small_net import FAST, run_of
from torch import nn

import lianzhi as lz
from lianzhi.errors import RecipeError
from lianzhi.pipeline import checks
from lianzhi.pipeline.state import State
from lianzhi.pipeline.training import penalty_of, run_sparsify


def test_group_lasso_shrinks_all_that_goes_with_a_channel(task):
    """The penalty is what is added to the loss: the norms of the units' slices times the coefficient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 4))
    penalty = penalty_of(lz.Sparsify(method="group_lasso", coefficient=0.5), model, task)
    parts = torch.cat([model[1].weight, model[1].bias[:, None], model[3].weight.T], 1)
    assert penalty().item() == pytest.approx(0.5 * parts.norm(dim=1).sum().item(), rel=1e-5)


def test_sparsify_by_group_lasso_trains(task, tmp_path):
    def norms(coefficient):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
        step = lz.Sparsify(method="group_lasso", coefficient=coefficient, **FAST)
        run, work = run_of(task, tmp_path / f"{coefficient}", step)
        state = State(model=model, teacher=model)
        details = run_sparsify(run, state, step, work, resume=False)
        assert "group_lasso" in details["history"]["epochs"][0]["terms"]
        return penalty_of(step.model_copy(update={"coefficient": 1.0}), state.model, task)().item()

    assert norms(0.05) < norms(0.0)


def test_nothing_to_sparsify_is_refused_before_a_run(task, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    for method, message in (("bn_l1", "no BatchNorm"), ("group_lasso", "no channel groups")):
        run, _ = run_of(task, tmp_path, lz.Sparsify(method=method, **FAST))
        with pytest.raises(RecipeError, match=message):
            checks.check(run, model)
