"""Connectors make one shape the other; stage ends are the last output of each size."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from tiny_cnn import Block, TinyCNN
from torch import nn

import lianzhi as lz
from lianzhi.distill.capture import capture
from lianzhi.distill.connectors import connector
from lianzhi.distill.stage_ends import Feature, features_of, stage_ends
from lianzhi.errors import DataError, GraphError
from lianzhi.graph import capture as capture_graph

IMAGE = torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((1, 4, 8, 8), (1, 9, 8, 8)),
        ((1, 4, 8, 8), (1, 4, 4, 4)),
        ((1, 4, 4, 6), (1, 9, 8, 12)),
        ((1, 4, 8, 4), (1, 9, 4, 8)),
        ((1, 9, 8, 8), (1, 4, 4, 4)),
        ((1, 4, 8, 8), (1, 9)),
        ((1, 4, 8, 8), (1, 4)),
        ((1, 4), (1, 9)),
        ((1, 7, 4), (1, 7, 9)),
    ],
)
def test_they_join_any_two_shapes(student, teacher):
    joined = connector(student, teacher)
    features = torch.randn(3, *student[1:], requires_grad=True)
    out = joined(features)
    assert out.shape == (3, *teacher[1:])
    out.square().sum().backward()
    assert features.grad.any()


def test_equal_shapes_need_nothing():
    assert not list(connector((2, 4, 8, 8), (1, 4, 8, 8)).parameters())


def test_maps_become_smaller_by_the_mean_over_squares():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    assert connector(maps.shape, (1, 1, 2, 2))(maps).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]


def test_the_convolution_is_where_the_maps_are_small():
    order = [type(part).__name__ for part in connector((1, 4, 8, 8), (1, 9, 4, 4))]
    assert order == ["Resize", "Conv2d", "MapNorm"]
    order = [type(part).__name__ for part in connector((1, 4, 4, 4), (1, 9, 8, 8))]
    assert order == ["Conv2d", "MapNorm", "Resize"]


def test_a_batch_of_one_sample_at_one_position():
    joined = connector((1, 4, 1, 1), (1, 9, 1, 1)).train()
    assert joined(torch.randn(1, 4, 1, 1)).isfinite().all()
    assert joined[1].num_batches_tracked == 0
    joined(torch.randn(2, 4, 1, 1))
    assert joined[1].num_batches_tracked == 1


@pytest.mark.parametrize(
    ("student", "teacher"), [((1, 9), (1, 4, 8, 8)), ((1, 5, 4), (1, 7, 9)), ((1, 4, 8, 8), (1, 5, 9))]
)
def test_shapes_that_nothing_joins_are_named(student, teacher):
    with pytest.raises(DataError, match=str(list(student)).replace("[", r"\[").replace("]", r"\]")):
        connector(student, teacher)


def test_stage_ends_of_a_cnn():
    ends = stage_ends(TinyCNN(4, 6, 8, blocks=2), IMAGE)
    assert ends == [
        Feature("stages.0", (1, 4, 8, 8)),
        Feature("stages.1", (1, 6, 4, 4)),
        Feature("stages", (1, 8, 2, 2)),
    ]
    assert stage_ends(TinyCNN(4, 6, 8), IMAGE, most=1) == [Feature("stages", (1, 8, 2, 2))]


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_stage_ends_of_the_cifar_resnets(name):
    ends = stage_ends(lz.model(name), torch.zeros(1, 3, 32, 32))
    assert [(end.name, end.shape[1:]) for end in ends] == [
        ("layer1", (16, 32, 32)),
        ("layer2", (32, 16, 16)),
        ("layer3", (64, 8, 8)),
    ]


def test_a_model_is_left_as_it_was():
    model = TinyCNN(4, 6).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stage_ends(model, IMAGE)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_modules_that_run_twice_and_pooled_maps_are_passed_over():
    class Shares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.act = Block(3, 4, 1), Block(4, 6, 2), nn.ReLU()
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            return self.pool(self.act(self.second(self.act(self.first(x))))).flatten(1)

    assert [end.name for end in stage_ends(Shares(), IMAGE)] == ["first", "second"]
    pooled = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (192, 1, 1)), nn.Conv2d(192, 4, 1))
    assert [end.name for end in stage_ends(pooled, IMAGE)] == ["2"]


def test_stage_ends_of_a_model_that_was_loaded_without_its_code(tmp_path):
    model = TinyCNN(4, 6, 8).eval()
    lz.save(model, tmp_path / "saved", example_inputs=IMAGE)
    graph = lz.load(tmp_path / "saved").eval()
    ends = stage_ends(graph, IMAGE)
    assert [end.shape for end in ends] == [end.shape for end in stage_ends(model, IMAGE)]
    images = torch.randn(3, 3, 8, 8)
    with capture(graph, [end.name for end in ends]) as seen:
        found = graph(images)
    with capture(model, ["stages.0", "stages.1", "stages"]) as wanted:
        assert torch.allclose(found, model(images), atol=1e-6)
    for end, name in zip(ends, wanted.names, strict=True):
        assert torch.allclose(seen[end.name], wanted[name], atol=1e-6)
    assert "forward" not in vars(graph)
    with pytest.raises(GraphError, match="no module 'stages'"), capture(graph, ["stages"]):
        pass


def test_a_captured_graph_with_named_inputs_trains_while_it_is_watched():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, values, scale):
            return self.linear(self.norm(values)) * scale

    inputs = {"values": torch.randn(6, 4), "scale": torch.tensor(3.0)}
    plain = Named().train()
    graph = capture_graph(copy.deepcopy(plain).eval(), inputs).module.train()
    with capture(graph, ["linear"]) as seen:
        found = graph(**inputs)
    assert torch.allclose(found, plain(**inputs), atol=1e-6)
    assert torch.allclose(3 * seen["linear"], found)
    assert torch.allclose(graph.get_buffer("norm.running_mean"), plain.norm.running_mean)
    (gradient,) = torch.autograd.grad(found.sum(), graph.get_parameter("linear.weight"))
    assert gradient.any()


def vision(kind: str) -> nn.Module:
    """A small vision model of the library's."""
    if kind == "convnext":
        sizes = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 32, 64], "image_size": 64}
        return transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**sizes))
    if kind == "swin":
        sizes = {"image_size": 64, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
        return transformers.SwinForImageClassification(transformers.SwinConfig(**sizes))
    sizes = {"image_size": 64, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2}
    more = {"num_attention_heads": 2, "intermediate_size": 32}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, **more))


def test_channels_that_stand_last_are_no_maps():
    """ConvNeXt's blocks run (batch, height, width, channels) through linear layers."""
    ends = stage_ends(vision("convnext"), torch.zeros(1, 3, 64, 64))
    assert [end.shape for end in ends] == [(1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4), (1, 64, 2, 2)]


@pytest.mark.parametrize("kind", ["swin", "vit"])
@pytest.mark.parametrize("loaded", [False, True])
def test_the_stages_of_vision_transformers_must_be_named(kind, loaded):
    model, images = vision(kind).eval(), torch.zeros(1, 3, 64, 64)
    if loaded:
        model = capture_graph(model, images).module
    with pytest.raises(GraphError, match=r"goes on in tokens after its last maps .*student_layers"):
        stage_ends(model, images)


def test_without_maps_the_layers_must_be_named():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(GraphError, match="student_layers"):
        stage_ends(model, IMAGE)
    assert features_of(model, IMAGE, ["1"]) == [Feature("1", (1, 4))]
    with pytest.raises(GraphError, match="no module 'x'"):
        features_of(model, IMAGE, ["x"])
