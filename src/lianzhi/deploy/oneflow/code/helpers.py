"""Functions that stand in the written source where an operation of it needs them, by their names."""

from __future__ import annotations

import re

ATTENTION = '''
def attention(query, key, value, mask, scale):
    """softmax(query · keyᵀ · scale) · value. A boolean mask is true at the places that count; another one is added."""
    scores = flow.matmul(query, key.transpose(-2, -1)) * scale
    if mask is None:
        return flow.matmul(flow.softmax(scores, dim=-1), value)
    if mask.dtype != flow.bool:
        return flow.matmul(flow.softmax(scores + mask, dim=-1), value)
    hidden = flow.logical_not(mask)
    weights = flow.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
    return flow.matmul(weights.masked_fill(hidden, 0.0), value)  # a row that is hidden whole gives zero
'''

CAUSAL = '''
def causal(query, key):
    """The mask by which no place sees those after it: (queries, keys)."""
    return flow.tril(flow.ones((query.shape[-2], key.shape[-2]), device=query.device)).to(flow.bool)
'''

LSTM = '''
def lstm(x, hidden, cell, layers, directions, batch_first):
    """An LSTM over x of shape (batch, steps, inputs), or (steps, batch, inputs), from states (layers · directions, batch, units).

    `layers` are (input weight, hidden weight, input bias, hidden bias), a layer and direction after the other.
    Returns the outputs of the last layer, and the last states of all.
    """
    x = x if batch_first else x.transpose(0, 1)
    hiddens, cells = [], []
    for start in range(0, len(layers), directions):
        found = []
        for place in range(start, start + directions):
            backwards = place - start == 1
            outputs, h, c = lstm_layer(flow.flip(x, [1]) if backwards else x, hidden[place], cell[place], *layers[place])
            found.append(flow.flip(outputs, [1]) if backwards else outputs)
            hiddens.append(h)
            cells.append(c)
        x = flow.cat(found, dim=-1) if directions == 2 else found[0]
    x = x if batch_first else x.transpose(0, 1)
    return x, flow.stack(hiddens, dim=0), flow.stack(cells, dim=0)


def lstm_layer(x, h, c, input_weight, hidden_weight, input_bias, hidden_bias):
    """One layer in one direction, step by step."""
    inputs, outputs = F.linear(x, input_weight, input_bias), []
    for step in range(x.shape[1]):
        gates = inputs[:, step] + F.linear(h, hidden_weight, hidden_bias)
        take, keep, new, give = flow.chunk(gates, 4, dim=-1)
        c = flow.sigmoid(keep) * c + flow.sigmoid(take) * flow.tanh(new)
        h = flow.sigmoid(give) * flow.tanh(c)
        outputs.append(h)
    return flow.stack(outputs, dim=1), h, c
'''

GROUP_NORM = '''
def group_norm(x, groups, weight, bias, eps):
    """(x - mean) / √(variance + eps) over each group of channels, then weight and bias a channel."""
    grouped = x.reshape(x.shape[0], groups, -1)
    mean = flow.mean(grouped, dim=-1, keepdim=True)
    variance = flow.mean((grouped - mean) ** 2, dim=-1, keepdim=True)
    x = ((grouped - mean) / flow.sqrt(variance + eps)).reshape(x.shape)
    shape = [1, x.shape[1]] + [1] * (x.dim() - 2)
    if weight is not None:
        x = x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)
'''

HELPERS = {"attention": ATTENTION, "causal": CAUSAL, "lstm": LSTM, "group_norm": GROUP_NORM}
FUNCTIONS = frozenset(re.findall(r"^def (\w+)", "".join(HELPERS.values()), re.MULTILINE))
