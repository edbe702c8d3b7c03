"""Everything that has a name: the registries, and the ready recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lianzhi import deploy, distill, files, models, prune, quantize, tasks
from lianzhi.config import defaults
from lianzhi.errors import RecipeError, did_you_mean

REGISTRIES = {
    "criteria": prune.registry,
    "losses": distill.losses.registry,
    "methods": distill.methods.registry,
    "models": models.registry,
    "observers": quantize.observers_registry,
    "tasks": tasks.registry,
    "targets": deploy.registry,
    "techniques": quantize.ptq.registry,
}


def names(kind: str) -> list[dict[str, Any]]:
    """One dict a name: name, summary, paper, options with their defaults, and whose package it is ("" for Lianzhi's own)."""
    if kind == "recipes":
        return _recipes(Path("recipes"))
    if kind not in REGISTRIES:
        raise RecipeError(f"nothing is listed as '{kind}'{did_you_mean(kind, [*REGISTRIES, 'recipes'])}")
    registry = REGISTRIES[kind]
    rows = []
    for name in registry.names():
        entry = registry.get(name)
        row = {"name": name, "summary": entry.summary, "paper": entry.paper}
        rows.append({**row, "options": defaults(entry.config), "package": entry.package})
    return rows


def _recipes(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for file in sorted(folder.glob("*.yaml")):
        text = files.read_text(file)
        first = text.lstrip().splitlines()[:1]
        summary = first[0].lstrip("# ") if first and first[0].startswith("#") else ""
        data = files.parse_yaml(text, str(file))
        steps = data.get("steps") if isinstance(data, dict) else None
        if not isinstance(steps, list):  # some other YAML file
            continue
        row = {"name": str(file), "summary": summary, "paper": "", "options": {"steps": len(steps)}}
        rows.append({**row, "package": ""})
    return rows
