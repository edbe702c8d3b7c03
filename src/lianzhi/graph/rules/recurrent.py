"""LSTM, GRU and plain recurrent layers: a hidden unit goes with its rows in every gate."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from lianzhi.graph.labels import spread
from lianzhi.graph.rules.flow import IN, OUT, Flow, argument, op_name, rule, sizes_of, stop

aten = torch.ops.aten


@rule(aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
def recurrent(flow: Flow, node: fx.Node) -> None:
    """Layers and directions share one hidden size: the same units go in each of them.

    Weights of a layer and direction: (gates·hidden, in), (gates·hidden, hidden), and two biases.
    """
    source, states, weights = node.args[0], node.args[1], list(node.args[2])  # type: ignore[arg-type]
    initial = list(states) if isinstance(states, (list, tuple)) else [states]
    names = [flow.tensor(weight) for weight in weights]
    each = 4 if argument(node, "has_biases") else 2
    directions = 2 if argument(node, "bidirectional") else 1
    layers = int(argument(node, "num_layers"))
    if any(name is None for name in names) or len(names) != each * directions * layers:
        stop(flow, node, f"{op_name(node)} with computed weights or a projection")
        return
    hidden_size = flow.shapes[str(names[1])][1]
    hidden = flow.axis(str(names[1]), 1, IN)
    for state in initial:
        rank = len(sizes_of(state))
        vector = flow.vector(state, rank - 1, f"{op_name(node)} starts from it")
        if isinstance(state, fx.Node) and any(flow.is_soft(layer) for layer in flow.layers(state)):
            flow.labels.tie(vector, hidden)
            rest = range(rank - 1)
            flow.restricted(flow.layers(state), rest, f"{op_name(node)} starts from it")
        else:
            flow.labels.freeze(hidden, f"{op_name(node)} starts from a state that cannot shrink")
    shape = sizes_of(source)
    reads = flow.vector(source, len(shape) - 1, f"{op_name(node)} reads it in another arrangement")
    flow.restricted(flow.layers(source), range(len(shape) - 1), f"{op_name(node)} runs over it")
    for layer in range(layers):
        for direction in range(directions):
            first = each * (layer * directions + direction)
            _cell(flow, [str(name) for name in names[first : first + each]], hidden, reads)
        reads = torch.cat([hidden] * directions)
    output = sizes_of_part(node, 0)
    flow.put_parts(
        node,
        [
            [spread(torch.cat([hidden] * directions), len(output) - 1, output)],
            *(
                [spread(hidden, len(sizes_of_part(node, index)) - 1, sizes_of_part(node, index))]
                for index in range(1, len(node.meta["val"]))
            ),
        ],
    )
    assert len(hidden) == hidden_size


def _cell(flow: Flow, names: list[str], hidden: Tensor, reads: Tensor) -> None:
    """Tie one layer and direction: the rows of every gate, and what is read from below and from the step before."""
    flow.labels.tie(flow.axis(names[0], 1, IN), reads)
    flow.labels.tie(flow.axis(names[1], 1, IN), hidden)
    for name, role in zip(names, (OUT, OUT, "bias", "bias"), strict=False):
        rows = flow.axis(name, 0, role).view(-1, len(hidden))
        flow.labels.tie(rows, hidden.expand(rows.shape))


def sizes_of_part(node: fx.Node, index: int) -> tuple[int, ...]:
    """The traced shape of one of several tensors that a node gives."""
    return tuple(int(size) for size in node.meta["val"][index].shape)
