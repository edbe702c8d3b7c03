"""Take rows out of a model's token embeddings, to go with a smaller vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from lianzhi.errors import GraphError
from lianzhi.graph import replace_tensor


def token_tables(model: nn.Module, size: int) -> list[str]:
    """Names of the embeddings that token ids index: the library's own input embedding, else those of `size` rows.

    >>> token_tables(nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 2)), 50)
    ['0']

    Raises:
        GraphError: there is none, or it has fewer rows than there are tokens.
    """
    tables = {name: module for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    own = getattr(model, "get_input_embeddings", None)
    if callable(own) and hasattr(model, "config"):
        first = own()
        found = [name for name, module in tables.items() if module is first]
    else:
        found = [name for name, module in tables.items() if module.num_embeddings == size]
    if not found or any(tables[name].num_embeddings < size for name in found):
        raise GraphError(
            f"{type(model).__name__} has no embedding of the tokenizer's {size:,} tokens; its vocabulary cannot be reduced"
        )
    return found


def keep_tokens(model: nn.Module, rows: NDArray[Any], tables: list[str]) -> None:
    """Keep these rows of the tables, (rows,) of old ids in the order of the new ones, in place; what counts tokens follows.

    >>> import numpy as np
    >>> net = nn.Sequential(nn.Embedding(5, 2, padding_idx=4))
    >>> keep_tokens(net, np.array([1, 4]), ["0"]); net[0].weight.shape, net[0].padding_idx
    (torch.Size([2, 2]), 1)

    An output layer that is tied to a table stays tied to it.
    """
    index = torch.from_numpy(rows)
    places = {int(old): place for place, old in enumerate(rows)}
    for name in tables:
        table = model.get_submodule(name)
        assert isinstance(table, nn.Embedding)
        old = table.weight
        tied = [key for key, value in model.named_parameters(remove_duplicate=False) if value is old]
        fresh = nn.Parameter(old.detach()[index].clone(), old.requires_grad)
        for key in tied:
            replace_tensor(model, key, fresh)
        table.num_embeddings = len(rows)
        if table.padding_idx is not None:
            table.padding_idx = places.get(table.padding_idx % len(old))
    config: Any = getattr(model, "config", None)
    if hasattr(config, "vocab_size"):
        config.vocab_size = len(rows)
        for key in (
            "pad_token_id",
            "bos_token_id",
            "eos_token_id",
            "sep_token_id",
            "cls_token_id",
            "mask_token_id",
        ):
            number = getattr(config, key, None)
            if type(number) is int:
                setattr(config, key, places.get(number))
