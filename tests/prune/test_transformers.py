"""Models of the transformers library: exact at 30 % and 50 %, config and files in step where a config can say it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

import lianzhi as lz
from lianzhi.errors import GraphError
from lianzhi.graph import capture, channel_groups
from lianzhi.prune import Plan, plan_layers

pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
_PATH = Path(__file__).parents[2] / "benchmarks" / "coverage_transformers.py"
_SPEC = importlib.util.spec_from_file_location("coverage_transformers", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
architectures = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(architectures)

QUICK = ["bert", "llama", "t5_encoder", "vit", "swin", "gpt2"]
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in architectures.ENTRIES
]


def planned(name):
    torch.manual_seed(0)
    model, inputs = architectures.ENTRIES[name]()
    graph = capture(model.eval(), inputs)
    return model, inputs, Plan(graph, channel_groups(graph), {})


def outputs(model, inputs):
    with torch.no_grad():
        found = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("name", NAMES)
def test_random_removals_are_exact_and_train(name):
    _, inputs, decided = planned(name)
    for share in (0.3, 0.5):
        generator = torch.Generator().manual_seed(1)
        for group in decided.groups.groups:
            keep = torch.rand(len(group), generator=generator) > share
            keep[int(torch.randint(len(group), (1,), generator=generator))] = True
            decided.keeps[group.name] = keep
        assert decided.verify() < 1e-5
    small = decided.apply()
    assert sum(p.numel() for p in small.parameters()) == decided.count("parameters")
    assert all(
        a.shape == b.shape
        for a, b in zip(outputs(small, inputs), outputs(decided.graph.source, inputs), strict=True)
    )
    small.train()
    found = small(**inputs) if isinstance(inputs, dict) else small(torch.cat([inputs, inputs]))
    sum(
        leaf.square().mean() for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)
    ).backward()
    assert any(parameter.grad is not None for parameter in small.parameters())


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "vit"])
def test_an_even_plan_is_said_by_the_config(name, tmp_path):
    """The same share everywhere: save_pretrained and from_pretrained give the same model."""
    model, inputs, decided = planned(name)
    decided.keeps = {
        group.name: torch.arange(len(group)) >= int(len(group) * 0.5) for group in decided.groups.groups
    }
    small = decided.apply()
    assert decided.result_kind == "plain"
    assert decided.result_reason == ""
    assert small.config.hidden_size == model.config.hidden_size // 2
    assert model.config.hidden_size == 48
    small.save_pretrained(tmp_path)
    again = type(small).from_pretrained(tmp_path).eval()
    for a, b in zip(outputs(small, inputs), outputs(again, inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("name", "dtype"), [("bert", torch.bfloat16), ("bert", torch.float64), ("llama", torch.bfloat16)]
)
def test_a_config_is_found_for_weights_of_any_type_and_is_one_for_all_submodules(name, dtype):
    torch.manual_seed(0)
    model, inputs = architectures.ENTRIES[name]()
    model.to(dtype).eval()
    decided = lz.prune.plan(model, inputs, ratio=0.5, scope="layer")
    small = decided.apply(in_place=True)
    assert (small is model, decided.result_reason) == (True, "")
    configs = {id(module.config): module.config for module in small.modules() if hasattr(module, "config")}
    assert [config.hidden_size for config in configs.values()] == [24]


def test_a_cache_in_the_output_is_told_with_the_mend():
    torch.manual_seed(0)
    model, inputs = architectures.ENTRIES["gpt2"]()
    model.config.use_cache = True
    with pytest.raises(GraphError, match=r"model\.config\.use_cache = False"):
        capture(model.eval(), inputs)


def test_an_uneven_plan_is_said_by_the_artifact(tmp_path):
    _, inputs, decided = planned("bert")
    group = next(group for group in decided.groups.groups if group.kind == "ffn")
    decided.keeps = {group.name: torch.arange(len(group)) > 9}
    small = decided.apply()
    assert "lianzhi.save" in decided.result_reason
    lz.save(small, tmp_path / "small", example_inputs=inputs)
    for a, b in zip(outputs(small, inputs), outputs(lz.load(tmp_path / "small"), inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_a_shorter_model_has_a_shorter_config(tmp_path):
    torch.manual_seed(0)
    model, inputs = architectures.ENTRIES["qwen2"]()
    decided = plan_layers(model.eval(), inputs, ratio=0.5)
    small = decided.apply()
    assert decided.verify() < 1e-5
    assert small.config.num_hidden_layers == len(small.config.layer_types) == len(small.model.layers) == 1
    assert model.config.num_hidden_layers == len(model.model.layers) == 2
    small.save_pretrained(tmp_path)
    for a, b in zip(
        outputs(small, inputs), outputs(type(small).from_pretrained(tmp_path).eval(), inputs), strict=True
    ):
        torch.testing.assert_close(a, b)
