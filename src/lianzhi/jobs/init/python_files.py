"""What in a Python file makes a model: found by reading the file, which is never run.

That is a class that derives from `nn.Module`, or a function that returns one, by its annotation or by what it returns.
Classes that another class or a maker uses are its parts, and not offered; a `…Loss` is no model.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lianzhi import files
from lianzhi.errors import ArtifactError, RecipeError

BASES = frozenset({"Module", "Sequential", "PreTrainedModel", "LightningModule"})
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Required:
    """Stands for the default of a parameter that has none."""

    def __repr__(self) -> str:
        return "(no default)"


REQUIRED = Required()


@dataclass(frozen=True)
class Maker:
    """A class or function that makes a model: its name, its parameters with their defaults, whether it takes any name.

    A default that is no plain value is None.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    takes_any: bool = False

    @property
    def required(self) -> list[str]:
        """The parameters without a default."""
        return [name for name, value in self.parameters.items() if value is REQUIRED]


def makers(file: Path) -> list[Maker]:
    """Everything in a file that makes a model, functions first.

    Raises:
        RecipeError: the file is no Python.
    """
    tree = _parsed(file)
    classes = _module_classes(tree)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and _makes(node, classes)]
    users: list[ast.FunctionDef | ast.ClassDef] = [*functions, *classes.values()]
    parts = {name for node in users for name in _names(node) if name in classes and name != node.name}
    alone = [node for node in classes.values() if node.name not in parts] or (
        [] if functions else list(classes.values())
    )
    kept: list[ast.FunctionDef | ast.ClassDef] = [*functions, *alone]
    kept = [node for node in kept if not node.name.startswith("_")]
    return [_maker(node, classes) for node in kept if not node.name.endswith(("Loss", "Criterion"))]


def named(file: Path, name: str) -> Maker:
    """The class or function of that name, whatever it makes.

    Raises:
        RecipeError: the file is no Python, or nothing in it has the name.
    """
    tree = _parsed(file)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return _maker(node, classes)
    others = [maker.name for maker in makers(file)]
    if any(alias == name for node in tree.body for alias in _assigned(node)):
        return Maker(name, takes_any=True)  # an import, or another name of a function
    raise RecipeError(
        f"--model {file}:{name}: {file} has no function or class '{name}'; what makes a model there: "
        f"{', '.join(others) or 'nothing'}"
    )


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(files.read_text(file), filename=str(file))
    except ArtifactError as error:
        raise RecipeError(str(error)) from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"{file}:{line}" if line else str(file)
        raise RecipeError(f"{where}: no valid Python ({error}); correct the file") from None


def _last(node: ast.expr | None) -> str:
    """The last part of a name: of `nn.Module` it is `Module`; also of one in quotes."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.rpartition(".")[2]
    return node.id if isinstance(node, ast.Name) else ""


def _module_classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """The classes that are modules, directly or by another class of the file."""
    waiting = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found: dict[str, ast.ClassDef] = {}
    while True:
        new = [node for node in waiting if {_last(base) for base in node.bases} & (BASES | found.keys())]
        if not new:
            return {
                node.name: node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in found
            }
        found |= {node.name: node for node in new}
        waiting = [node for node in waiting if node not in new]


def _makes(function: ast.FunctionDef, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether a function gives a module: it says so, or returns what a module class was called for."""
    kinds = BASES | classes.keys()
    if _last(function.returns) in kinds:
        return True
    inside = [node for node in ast.walk(function) if _own(node, function)]
    made = {
        name
        for node in inside
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and _last(node.value.func) in kinds
        for name in _assigned(node)
    }
    for node in inside:
        if isinstance(node, ast.Return):
            value = node.value
            if isinstance(value, ast.Call) and _last(value.func) in kinds:
                return True
            if isinstance(value, ast.Name) and value.id in made:
                return True
    return False


def _own(node: ast.AST, function: ast.FunctionDef) -> bool:
    """Not in a function within the function."""
    inner = [item for item in ast.walk(function) if isinstance(item, Function) and item is not function]
    return not any(node is item for other in inner for item in ast.walk(other))


def _assigned(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name for alias in node.names)


def _names(node: ast.AST) -> set[str]:
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}


def _maker(node: ast.FunctionDef | ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Maker:
    """The parameters of a function, or of the `__init__` that a class has, from its bases in the file if need be."""
    if isinstance(node, ast.FunctionDef):
        return _signature(node.name, node.args, skip=0)
    seen: set[str] = set()
    current: ast.ClassDef | None = node
    while current is not None and current.name not in seen:
        seen.add(current.name)
        for item in current.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return _signature(node.name, item.args, skip=1)
        current = next((classes[_last(base)] for base in current.bases if _last(base) in classes), None)
    return Maker(node.name)


def _signature(name: str, arguments: ast.arguments, *, skip: int) -> Maker:
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults: list[Any] = [REQUIRED] * (len(plain) - len(arguments.defaults))
    defaults += [_value(item) for item in arguments.defaults]
    found = {item.arg: value for item, value in list(zip(plain, defaults, strict=True))[skip:]}
    for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found[item.arg] = REQUIRED if default is None else _value(default)
    return Maker(name, found, takes_any=arguments.kwarg is not None)


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
