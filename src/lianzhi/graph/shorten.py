"""Take blocks out of their lists, and bring what counts them in step: the config, the index of each block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers")


def shortened(model: nn.Module, removed: Sequence[str]) -> nn.Module:
    """Change a model: these blocks go, and what counts blocks follows."""
    for path in dict.fromkeys(name.rpartition(".")[0] for name in removed):
        parent = model.get_submodule(path)
        gone = {name.rpartition(".")[2] for name in removed if name.rpartition(".")[0] == path}
        before = len(parent._modules)
        positions = [index for index, key in enumerate(parent._modules) if key not in gone]
        kept = [module for key, module in parent._modules.items() if key not in gone]
        parent._modules.clear()
        for index, module in enumerate(kept):
            parent._modules[str(index)] = module
            for child in module.modules():  # type: ignore[union-attr]
                if type(vars(child).get("layer_idx")) is int:
                    child.layer_idx = index  # type: ignore[assignment]
        for config in _configs(model):
            _shorten_config(config, before, positions)
    return model


def _configs(model: nn.Module) -> list[Any]:
    """The configs of the transformers library in a model, each once."""
    found = [vars(module).get("config") for module in model.modules()]
    found.append(getattr(model, "config", None))
    return list({id(config): config for config in found if hasattr(config, "to_dict")}.values())


def _shorten_config(config: Any, before: int, positions: list[int]) -> None:
    for name, value in config.to_dict().items():
        if name in COUNTS and value == before:
            setattr(config, name, len(positions))
        elif name == "layer_types" and isinstance(value, list) and len(value) == before:
            setattr(config, name, [value[index] for index in positions])
