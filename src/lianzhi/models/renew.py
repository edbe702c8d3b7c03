"""The weights of a model anew, as its classes draw them: the same structure without what it has learned."""

from __future__ import annotations

from typing import Any

from torch import nn

from lianzhi.errors import RecipeError


def renew(model: nn.Module) -> nn.Module:
    """Draw all weights of a model anew from PyTorch's generator, in place.

    >>> import torch
    >>> net = nn.Linear(2, 2)
    >>> with torch.no_grad(): _ = net.weight.fill_(7.0)
    >>> bool((renew(net).weight == 7.0).any())
    False

    A model of transformers is drawn as its config says, others layer by layer (`reset_parameters`).

    Raises:
        RecipeError: some weights belong to a module that does not say how they are drawn, or a config no longer
            fits the sizes, as after heads or channels were pruned.
    """
    config: Any = getattr(model, "config", None)
    if hasattr(config, "model_type"):
        from lianzhi.models.text.huggingface import build

        fresh = build(config).state_dict()
        own = model.state_dict()
        other = [name for name in own if name not in fresh or own[name].shape != fresh[name].shape]
        if other or len(own) != len(fresh):
            named = f"'{other[0]}' is other than" if other else "there are more weights in"
            raise RecipeError(
                f"the weights cannot be drawn anew: {named} its config says; draw them before anything is pruned"
            )
        model.load_state_dict(fresh)
        return model
    drawn = set()
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            drawn |= {id(parameter) for parameter in module.parameters(recurse=False)}
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in drawn]
    if left:
        raise RecipeError(
            f"the weights cannot be drawn anew: '{left[0]}' belongs to a module without reset_parameters; "
            f"give a student of its own"
        )
    return model
