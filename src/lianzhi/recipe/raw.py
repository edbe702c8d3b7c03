"""What happens to a recipe's raw data before it is validated: environment variables, and ``--set``."""

from __future__ import annotations

import os
import re
from typing import Any

from lianzhi import files
from lianzhi.errors import RecipeError


def expand(value: Any) -> Any:
    """Fill in ``${NAME}`` from the environment, and a leading ``~/`` as the shell does, everywhere in a nested value.

    >>> os.environ["LIANZHI_DOC"] = "/data"
    >>> expand({"data": "${LIANZHI_DOC}/cifar10"})
    {'data': '/data/cifar10'}
    """
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise RecipeError(
                    f"the key {key!r} is not a word; put it in quotes (YAML reads on, off, yes and no as true and false)"
                )
        return {key: expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise RecipeError(
                f"the recipe uses ${{{name}}}, and the environment variable {name} is not set; "
                f"put {name}=… in front of the command"
            )
        return os.environ[name]

    filled = re.sub(r"\$\{(\w+)\}", fill, value)
    return os.path.expanduser(filled) if filled.startswith("~/") else filled


def override(data: dict[str, Any], assignment: str) -> None:
    """Apply one ``steps.1.ratio=0.6`` to the recipe's raw data. `steps.1` is the second step.

    >>> raw = {"steps": [{"train": {}}, {"prune": {"ratio": 0.5}}]}
    >>> override(raw, "steps.1.ratio=0.6"); raw["steps"][1]
    {'prune': {'ratio': 0.6}}
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise RecipeError(f"--set {assignment}: write it as KEY=VALUE, such as steps.1.ratio=0.6")
    keys, value = path.strip().split("."), files.parse_yaml(text, f"--set {path.strip()}")
    here: Any = data
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(here, list):
            if not (key.isascii() and key.isdigit()) or int(key) >= len(here):
                raise RecipeError(f"--set {path}: '{key}' is not the index of one of {len(here)} steps")
            if isinstance(here[int(key)], str) and not last:
                here[int(key)] = {here[int(key)]: {}}
            if last:
                here[int(key)] = value
                return
            here = here[int(key)]
            if not isinstance(here, dict) or len(here) != 1:
                raise RecipeError(f"--set {path}: step {key} is not written as '- prune: {{ratio: 0.5}}'")
            kind = next(iter(here))
            if here[kind] is None:
                here[kind] = {}
            if keys[position + 1] != kind:
                here = here[kind]
        elif not isinstance(here, dict):
            raise RecipeError(f"--set {path}: '{'.'.join(keys[:position])}' is a value, not a section")
        elif last:
            here[key] = value
        else:
            if isinstance(here.get(key), str) and key in ("model", "task"):
                here[key] = {"name": here[key]}
            if here.get(key) is None:
                here[key] = {}
            here = here[key]
