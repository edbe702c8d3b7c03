"""A last layer for other classes: `head: new` of a model or a student, which keeps all that came before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from lianzhi import graph, models
from lianzhi.errors import RecipeError
from lianzhi.graph.module import get_tensor, replace_tensor
from lianzhi.pipeline.capturing import captured_float
from lianzhi.tasks import Task

aten = torch.ops.aten
_SAME = frozenset({aten.alias.default, aten.clone.default, aten.detach.default, aten.dropout.default})
_CHOOSING = frozenset({aten.index.Tensor, aten.select.int, aten.slice.Tensor})


def with_new_head(model: nn.Module, task: Task, *, seed: int) -> nn.Module:
    """The model, in place, with a last layer for the task's classes, or its score, whose weights are drawn from `seed`.

    A model of transformers draws it as its config says, others as `torch.nn.Linear` does. Its remarks say which layer is new.

    Raises:
        RecipeError: the task says no number of classes, or the model does not end in a linear layer of its own.
        GraphError: it cannot be captured on the task's inputs, is quantized already, or is of half precision.
    """
    if task.num_classes is None:
        raise RecipeError(f"head: new: the task '{task.name}' does not say how many classes it has")
    weight_name, bias_name = _last_layer(model, task)
    old = get_tensor(model, weight_name)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        fresh = nn.Linear(old.shape[1], task.num_classes, bias=bias_name is not None)
        draw: Any = getattr(model, "_init_weights", None)
        if callable(draw) and _of_transformers(model):
            draw(fresh)
    replace_tensor(model, weight_name, nn.Parameter(fresh.weight.detach().to(old)))
    if bias_name is not None:
        replace_tensor(model, bias_name, nn.Parameter(fresh.bias.detach().to(old)))
    _say(model, weight_name, task.num_classes)
    return model


def _of_transformers(model: nn.Module) -> bool:
    return hasattr(getattr(model, "config", None), "model_type")


def _last_layer(model: nn.Module, task: Task) -> tuple[str, str | None]:
    """The names of the weight and the bias that give the model's output."""
    captured = captured_float(model, task.example_inputs)
    node = _answers(model, captured)
    while isinstance(node, fx.Node) and (node.target in _SAME or _chooses_rows(node)):
        node = node.args[0]
    if not isinstance(node, fx.Node) or node.target != aten.linear.default:
        last = getattr(node, "target", "several outputs")
        raise RecipeError(
            f"head: new: the {type(model).__name__} does not end in a linear layer (but in {last}); give a model that was "
            f"made for the task's classes"
        )
    names = [str(part.target) for part in node.args[1:] if isinstance(part, fx.Node)]
    _require_own(model, captured, node, names)
    _require_alone(model, captured, names[0])
    return names[0], names[1] if len(names) > 1 else None


def _answers(model: nn.Module, captured: graph.Graph) -> Any:
    """The node that gives the classes: the only output, or of a classifier of transformers the first."""
    leaves = [leaf for leaf in pytree.tree_leaves(captured.nodes[-1].args[0]) if isinstance(leaf, fx.Node)]
    return leaves[0] if len(leaves) == 1 or (leaves and _of_transformers(model)) else None


def _chooses_rows(node: fx.Node) -> bool:
    """Whether an op takes some rows of outputs as they are, as a decoder takes that of its last token."""
    if node.target not in _CHOOSING:
        return False
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    if node.target == aten.index.Tensor:
        return len(node.args[1]) < len(shape)  # type: ignore[arg-type]
    dimension = node.args[1] if len(node.args) > 1 else 0
    return int(dimension) % len(shape) != len(shape) - 1  # type: ignore[arg-type]


def _require_own(model: nn.Module, captured: graph.Graph, layer: fx.Node, names: list[str]) -> None:
    """Refuse a layer whose weights are computed, tied to others, or read a second time."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if name not in parameters:
            raise RecipeError(
                f"head: new: '{name}' is no parameter; give a model that ends in a plain linear layer"
            )
        tied = [other for other, value in parameters.items() if value is parameters[name] and other != name]
        readers = [
            user
            for node in captured.nodes
            if node.op == "get_attr" and node.target == name
            for user in node.users
        ]
        if tied or readers != [layer]:
            what = f"is '{tied[0]}' as well" if tied else "is read elsewhere too"
            raise RecipeError(f"head: new: '{name}' {what}, and cannot be another; give another model")


def _require_alone(model: nn.Module, captured: graph.Graph, name: str) -> None:
    """Refuse a second head of as many classes, which only training uses: it would keep the old ones."""
    read = {str(node.target) for node in captured.nodes if node.op == "get_attr"}
    classes = get_tensor(model, name).shape[0]
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.out_features == classes and f"{path}.weight" not in read:
            raise RecipeError(
                f"head: new: '{path}' gives {classes} classes too, in training alone; give a model without it"
            )


def _say(model: nn.Module, name: str, classes: int) -> None:
    """Bring what the modules say of the number of classes in step with the weights, and say which layer is new."""
    layer = name.rpartition(".")[0]
    owner = model.get_submodule(layer)
    if isinstance(owner, nn.Linear):
        owner.out_features = classes
    config: Any = getattr(model, "config", None)
    if hasattr(config, "num_labels"):
        config.num_labels = classes
        if hasattr(model, "num_labels"):
            model.num_labels = classes  # type: ignore[assignment]
    zoo = vars(model).get("zoo")
    if isinstance(zoo, dict) and "num_classes" in zoo["config"]:
        model.zoo = {**zoo, "config": {**zoo["config"], "num_classes": classes}}  # type: ignore[assignment]
    said = f"'{layer or name}' is new, for {classes} outputs: it knows nothing before it is trained"
    model.zoo_remarks = {"remarks": (*models.remarks(model), said)}  # type: ignore[assignment]
