"""The architecture is as its page says: rooms, files, which imports which, in both languages; no file and no function is long."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from lianzhi.recipe import STEPS

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ROOT / "src" / "lianzhi"
PAGES = [ROOT / "docs" / "architecture.md", ROOT / "docs" / "zh" / "architecture.md"]
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_every_room_has_its_row(text):
    rows = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(\w+)/`", rows))
    rooms = {folder.name for folder in ROOMS.iterdir() if (folder / "__init__.py").is_file()}
    assert rooms <= named
    inside = {file.parent.name for file in ROOMS.rglob("__init__.py")}
    assert named - rooms <= inside


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_every_file_that_is_named_is_there(text):
    found = set(re.findall(r"`((?:\w+/)*\w+\.py)`", text))
    known = [file.relative_to(ROOMS).as_posix() for file in ROOMS.rglob("*.py")]
    missing = [name for name in found if not any(f"/{file}".endswith(f"/{name}") for file in known)]
    assert len(found) > 30
    assert not missing


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_every_step_is_in_the_picture(text):
    picture = text.split("```")[1]
    assert all(name in picture for name in STEPS)


def test_both_languages_name_the_same_files():
    one, other = (set(re.findall(r"`([\w/]+(?:\.py|/))`", text)) for text in TEXTS)
    assert one == other


@cache
def imports(place: str) -> set[str]:
    """What the files of a folder, or one file, import of the package: dotted, without `lianzhi.`."""
    files = (ROOMS / place).rglob("*.py") if (ROOMS / place).is_dir() else [ROOMS / f"{place}.py"]
    found: set[str] = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("lianzhi.") for name in found if name.startswith("lianzhi.")}


def rooms_of(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def table(text: str) -> list[tuple[set[str], str]]:
    """The rooms of each row, and what they may import as the page says it."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| `\w+(/|\.py)`", line)]
    named = [(set(re.findall(r"`(\w+)(?:/|\.py)`", row[0])), row[-1]) for row in rows if len(row) == 3]
    return named


def allowed(text: str) -> dict[str, set[str]]:
    """By room, which it may import; "and below" is what stands under those that are named."""
    rows = table(text)
    direct = {room: set(re.findall(r"`(\w+)`", cell)) for rooms, cell in rows for room in rooms}

    def below(room: str) -> set[str]:
        return {room}.union(*map(below, direct[room]))

    for rooms, cell in rows:
        if "below" in cell or "及以下" in cell:
            for room in rooms:
                direct[room] = set().union(*map(below, direct[room]))
    base, _ = rows[-1]
    return {room: named | base for room, named in direct.items()}


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_arrows_go_the_way_that_the_table_says(text):
    may = allowed(text)
    assert len(may) > 18
    wrong = {
        room: rooms_of(imports(room)) - named - {room, "_version", "__version__"}
        for room, named in may.items()
    }
    assert not {room: names for room, names in wrong.items() if names}
    for rooms, cell in table(text):
        used = rooms_of(set().union(*map(imports, rooms)))
        unused = set(re.findall(r"`(\w+)`", cell)) - used
        assert not unused, f"{rooms}: nothing imports {unused}"


def test_no_room_stands_on_itself():
    may = allowed(TEXTS[0])

    def reached(room: str, path: tuple[str, ...] = ()) -> None:
        assert room not in path, " -> ".join((*path, room))
        for other in rooms_of(imports(room)) & set(may) - {room}:
            reached(other, (*path, room))

    for room in may:
        reached(room)


@pytest.mark.parametrize(
    ("inner", "needs"),
    [
        ("distill/losses", {"config", "errors", "registry", "distill.losses"}),
        ("prune/criteria", {"config", "errors", "registry", "graph", "prune.criteria", "prune.importance"}),
        ("quantize/observers", {"config", "errors", "registry", "quantize.observers", "quantize.scheme"}),
    ],
)
def test_functions_of_tensors_know_no_model_task_or_loop(inner, needs):
    strange = {
        name for name in imports(inner) if not any(f"{name}.".startswith(f"{need}.") for need in needs)
    }
    assert not strange


FILES = sorted(
    file
    for folder in ("src", "tests", "benchmarks", "website", "examples")
    for file in (ROOT / folder).rglob("*.py")
)
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
# a file that may be longer, by its path, with the reason
LONG_FILES: dict[str, str] = {}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Of a function without its signature and its docstring, which are as long as what they promise."""
    has_docstring = ast.get_docstring(function) is not None and len(function.body) > 1
    first = function.body[1 if has_docstring else 0]
    return (function.end_lineno or 0) - first.lineno + 1


def test_no_file_and_no_function_is_long():
    assert len(FILES) > 900
    long = []
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        path = file.relative_to(ROOT).as_posix()
        if text.count("\n") > LONGEST_FILE and path not in LONG_FILES:
            long.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                and code_lines(node) > LONGEST_FUNCTION
            ):
                long.append(f"{path}: {node.name} has {code_lines(node)} lines")
    assert not long
