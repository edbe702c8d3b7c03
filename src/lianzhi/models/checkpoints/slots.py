"""Which variables of a TensorFlow checkpoint are no weights: what the optimizer keeps, and counters."""

from __future__ import annotations

import re
from collections.abc import Iterable

COUNTERS = ("global_step", "beta1_power", "beta2_power", "save_counter", "train_step")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = "/.OPTIMIZER_SLOT/"


def no_weights(names: Iterable[str]) -> dict[str, str]:
    """Names of what is no weight, and what it is.

    >>> no_weights(["dense/kernel", "dense/kernel/adam_m", "global_step"])
    {'dense/kernel/adam_m': "kept by the optimizer for 'dense/kernel'", 'global_step': 'a counter of training steps'}

    In TensorFlow 1 a variable below another variable is one that an optimizer, or a moving average, keeps for it; in
    TensorFlow 2 the names say it (``.OPTIMIZER_SLOT``, ``optimizer/…``).
    """
    found, known = {}, set(names)
    for name in sorted(known):
        plain = name.removesuffix(_VALUE)
        above = plain.rpartition("/")[0]
        if plain.rpartition("/")[2] in COUNTERS:
            found[name] = "a counter of training steps"
        elif _SLOT in plain:
            found[name] = f"kept by the optimizer for '{plain.partition(_SLOT)[0]}'"
        elif re.match(r"(?:.*/)?optimizer\d*/", plain) and name.endswith(_VALUE):
            found[name] = "of the optimizer"
        elif above in known:
            found[name] = f"kept by the optimizer for '{above}'"
    return found
