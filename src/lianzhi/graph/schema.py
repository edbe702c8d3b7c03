"""The arguments of a saved op against the op's own schema: how many, of which names and types."""

from __future__ import annotations

from typing import Any

from lianzhi.errors import ArtifactError
from lianzhi.graph.values import NOTHING, SYMBOL, TENSOR, TENSORS, fits

# recurrent kernels take the number of their weights on trust, and end the process if it is wrong
_RECURRENT = {"aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"}
MAX_LAYERS = 1000


def check_schema(name: str, schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Check number, names and types of the arguments; return what kind of value comes out."""
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    if len(args) > len(positional):
        raise ArtifactError(f"'{name}': {schema.name} takes {len(positional)} arguments, got {len(args)}")
    given = dict(zip((argument.name for argument in positional), args, strict=False))
    for key, value in kwargs.items():
        if key in given or not any(argument.name == key for argument in schema.arguments):
            raise ArtifactError(f"'{name}': {schema.name} does not take {key!r:.40} here")
        given[key] = value
    for argument in schema.arguments:
        if argument.name not in given:
            if not argument.has_default_value():
                raise ArtifactError(f"'{name}': {schema.name} needs '{argument.name}'")
        elif not fits(given[argument.name], argument.real_type):
            shown = str(given[argument.name])[:60]
            raise ArtifactError(
                f"'{name}': {schema.name} takes {argument.real_type} as '{argument.name}', got {shown}"
            )
    if schema.name in _RECURRENT:
        _check_recurrent(name, schema.name, given)
    returns = [item.type.kind() for item in schema.returns]
    if not returns:
        return NOTHING
    if len(returns) > 1 or returns[0] == "ListType":
        return TENSORS
    return TENSOR if returns[0] == "TensorType" else SYMBOL


def _check_recurrent(name: str, op: str, given: dict[str, Any]) -> None:
    """As many weights as layers, directions and biases ask for, and an LSTM's two states."""
    weights, layers, states = given["params"], given["num_layers"], given["hx"]
    if type(layers) is not int or not 1 <= layers <= MAX_LAYERS or not isinstance(weights, list):
        raise ArtifactError(f"'{name}': {op} of {str(layers)[:20]} layers")
    if not all(type(given[key]) is bool for key in ("has_biases", "bidirectional", "batch_first", "train")):
        raise ArtifactError(f"'{name}': {op} takes bools")
    cells = layers * (2 if given["bidirectional"] else 1)
    each = [4 if given["has_biases"] else 2]
    if op == "aten::lstm":
        each.append(each[0] + 1)  # with a projection
        if not isinstance(states, list) or len(states) != 2:
            raise ArtifactError(f"'{name}': {op} takes two states")
    if len(weights) not in [cells * count for count in each]:
        raise ArtifactError(f"'{name}': {op} of {layers} layers got {len(weights)} weights")
