"""Everything that has a name: the registries, and the ready recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lianzhi import deploy, distill, files, models, prune, tasks
from lianzhi.errors import RecipeError, did_you_mean

REGISTRIES = {
    "criteria": prune.registry,
    "losses": distill.losses.registry,
    "methods": distill.methods.registry,
    "models": models.registry,
    "tasks": tasks.registry,
    "targets": deploy.registry,
}


def names(kind: str) -> list[dict[str, Any]]:
    """One dict a name: name, summary, paper, options."""
    if kind == "recipes":
        return _recipes(Path("recipes"))
    if kind not in REGISTRIES:
        raise RecipeError(f"nothing is listed as '{kind}'{did_you_mean(kind, [*REGISTRIES, 'recipes'])}")
    registry = REGISTRIES[kind]
    rows = []
    for name in registry.names():
        entry = registry.get(name)
        options = entry.config().to_dict() if entry.config else {}
        rows.append({"name": name, "summary": entry.summary, "paper": entry.paper, "options": options})
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
        rows.append({"name": str(file), "summary": summary, "paper": "", "options": {"steps": len(steps)}})
    return rows
