"""Seeing what a model computes while it runs: the outputs of modules, or, of a captured graph, of its operations."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any

from torch import fx, nn

Note = Callable[[str, Any], None]


def output_names(model: nn.Module) -> list[str]:
    """Names of what gives an output: modules; of a captured graph (a model that was loaded without its code) operations.

    >>> output_names(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    ['0', '1']
    """
    if isinstance(model, fx.GraphModule):
        return [
            node.name for node in model.graph.nodes if node.op not in ("placeholder", "get_attr", "output")
        ]
    return [name for name, _ in model.named_modules() if name]


@contextlib.contextmanager
def watched(model: nn.Module, names: Collection[str], note: Note) -> Iterator[None]:
    """Call `note(name, output)` whenever one of these gives an output; nothing is left on the model afterwards.

    >>> net, seen = nn.Sequential(nn.Flatten(), nn.ReLU()), []
    >>> import torch
    >>> with watched(net, ["0"], lambda name, output: seen.append((name, output.shape))):
    ...     outputs = net(torch.zeros(2, 3, 4))
    >>> seen
    [('0', torch.Size([2, 12]))]
    """
    if isinstance(model, fx.GraphModule):
        with _interpreted(model, set(names), note):
            yield
        return
    hooks = []
    try:
        known = dict(model.named_modules())
        for name in names:

            def hook(_: nn.Module, args: Any, output: Any, name: str = name) -> None:
                note(name, output)

            hooks.append(known[name].register_forward_hook(hook))
        yield
    finally:
        for handle in hooks:
            handle.remove()


@contextlib.contextmanager
def _interpreted(model: fx.GraphModule, names: set[str], note: Note) -> Iterator[None]:
    """Run the graph operation by operation, in place of its generated code."""

    class Watcher(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            output = super().run_node(n)
            if n.name in names:
                note(n.name, output)
            return output

    signature = inspect.signature(model.forward)

    def forward(*inputs: Any, **named: Any) -> Any:
        given = signature.bind(*inputs, **named)
        return Watcher(model).run(*given.args, *given.kwargs.values())

    model.forward = forward
    try:
        yield
    finally:
        del model.forward
