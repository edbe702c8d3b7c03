"""The reference: a page a room, of docstrings. First what docs/api.md promises, then what else the room offers.

Nothing is imported: the names come from docs/api.md and from the rooms' `__init__.py` as they are written.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "lianzhi"
PROMISE = re.compile(r"^\| `lz\.([\w.]+)", re.MULTILINE)
# "" is the package itself
ROOMS = (
    "",
    *("prune", "quantize", "codebook", "distill", "measure", "deploy"),
    *("recipe", "pipeline", "tasks", "models", "train", "graph", "artifact", "report"),
)
INNER = {"distill": ["distill.losses", "distill.methods"], "deploy": ["deploy", "deploy.oneflow"]}
TEXTS = {
    "promised": ("Promised", "承诺的接口"),
    "rest": ("Also there", "其余名称"),
    "may change": (
        "Public names without a promise: they may change with a minor version. [What that means](../api.md).",
        "公开但不作承诺的名称：次版本更新时可能变化。[含义见此](../api.md)。",
    ),
    "language": ("", "以下说明取自代码中的文档字符串，原文为英文。"),
}


def page(room: str) -> str:
    return f"reference/{room or 'lianzhi'}.md"


def promised() -> list[str]:
    """Every name that docs/api.md promises, without `lz.`.

    >>> "prune.plan" in promised()
    True
    """
    return PROMISE.findall((ROOT / "docs" / "api.md").read_text("utf-8"))


def room_of(name: str) -> str:
    room = name.partition(".")[0] if "." in name else ""
    return room if room in ROOMS else ""


def offered(package: str) -> dict[str, str]:
    """Names in `__all__` of ``lianzhi.<package>``, and where each is defined; modules and constants are left out.

    >>> offered("prune")["plan"]
    'lianzhi.prune._plan.plan'
    """
    tree = ast.parse((SOURCE / package.replace(".", "/") / "__init__.py").read_text("utf-8"))
    homes, names = {}, []
    for node in ast.walk(tree):  # imports for the type checker alone, too
        if isinstance(node, ast.ImportFrom):
            homes |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
    return {
        name: homes[name]
        for name in names
        if name in homes and not is_module(homes[name]) and not name.isupper() and not name.startswith("_")
    }


def is_module(path: str) -> bool:
    place = ROOT / "src" / path.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").is_file()


def home(name: str) -> str:
    """Where a promised name is defined: ``prune.plan`` is `lianzhi.prune._plan.plan`."""
    package, _, last = name.rpartition(".")
    path = offered(package)[last]
    while path.rpartition(".")[0].removeprefix("lianzhi.") in ROOMS:  # passed on by a room's own __init__
        package, _, last = path.removeprefix("lianzhi.").rpartition(".")
        path = offered(package)[last]
    return path


def text(room: str, *, chinese: bool = False) -> str:
    """The Markdown of a room's page."""
    say = {key: pair[chinese] for key, pair in TEXTS.items()}
    names = [name for name in promised() if room_of(name) == room]
    lines = [f"# lz.{room}" if room else "# lz", "", say["language"], ""]
    if names:
        lines += [f"## {say['promised']}", ""]
        lines += [line for name in names for line in entry(name)]
    packages = INNER.get(room, [room]) if room else []
    rest = [f"{package}.{name}" for package in packages for name in offered(package)]
    taken = {home(name) for name in promised()}
    rest = [name for name in rest if home(name) not in taken]
    if rest:
        lines += [f"## {say['rest']}", "", say["may change"], ""]
        lines += [line for name in rest for line in entry(name)]
    return "\n".join(lines) + "\n"


def entry(name: str) -> list[str]:
    room = room_of(name)
    label = name.removeprefix(f"{room}.")
    return [f"::: {home(name)}", "    options:", f"      heading: lz.{name}", f"      toc_label: {label}", ""]


def linked(markdown: str) -> str:
    """The page api.md with each promised name linked to its place in the reference."""

    def link(row: re.Match[str]) -> str:
        return (
            f"| [`lz.{row[1]}`]({page(room_of(row[1]))}#{home(row[1])})"
            + row[0][len(f"| `lz.{row[1]}") + 1 :]
        )

    return re.sub(r"^\| `lz\.([\w.]+)`", link, markdown, flags=re.MULTILINE)
