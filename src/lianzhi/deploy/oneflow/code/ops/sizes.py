"""Computation with sizes, which are Python's own numbers."""

from __future__ import annotations

from lianzhi.deploy.oneflow.code.table import add

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "truediv": "/", "mod": "%", "pow": "**"}
_COMPARED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

add({f"operator.{name}": f"{{a}} {sign} {{b}}" for name, sign in (_SIGNS | _COMPARED).items()})
add(
    {
        "operator.neg": "-{a}",
        "torch.sym_max": "max({a}, {b})",
        "torch.sym_min": "min({a}, {b})",
        "torch.sym_int": "int({a})",
        "torch.sym_float": "float({a})",
        "torch.sym_not": "not {a}",
        "torch.sym_sum": "sum({a})",
        "math.ceil": "math.ceil({a})",
        "math.floor": "math.floor({a})",
        "math.trunc": "math.trunc({a})",
        "sym_size.int": "{self}.shape[{dim}]",
        "sym_numel.default": "{self}.numel()",
    }
)
