"""Which source files a piece of code depends on: its module, and what that imports of ours.

So that a changed line makes anew what was made with it, and nothing else. A
package's own `__init__` counts only where it is imported by name.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import ray_jobs

Piece = str | ModuleType | type[Any] | Callable[..., Any]  # text: the name of a module


def digest(*pieces: Piece) -> str:
    """SHA-256 of the sources of some functions, classes or modules, and of all they import."""
    total = hashlib.sha256()
    for path in files(*pieces):
        name = path.relative_to(_root()).as_posix()
        total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def files(*pieces: Piece) -> list[Path]:
    """The files themselves, in the order of their names."""
    waiting = [_module_of(piece) for piece in pieces]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(name, _root())
    return sorted(_path(name, _root()) for name in found)


def _module_of(piece: Piece) -> str:
    if isinstance(piece, ModuleType):
        name = piece.__name__
    else:
        name = piece if isinstance(piece, str) else piece.__module__
    assert name.split(".")[0] == "ray_jobs", f"{piece} is not ours to follow"
    return name


@cache
def _imports(name: str, root: Path) -> tuple[str, ...]:
    """Modules of ours that a module imports, wherever in it."""
    tree = ast.parse(_path(name, root).read_text())
    return tuple(dict.fromkeys(n for node in ast.walk(tree) for n in _imported(node, root)))


def _imported(node: ast.AST, root: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names if _exists(a.name, root))
    elif isinstance(node, ast.ImportFrom) and node.module and _exists(node.module, root):
        parts = [f"{node.module}.{a.name}" for a in node.names]
        modules = [part for part in parts if _exists(part, root)]
        yield from modules
        if len(modules) < len(parts):  # a name of the package itself
            yield node.module


def _exists(name: str, root: Path) -> bool:
    return name.split(".", maxsplit=1)[0] == "ray_jobs" and _path(name, root).exists()


def _path(name: str, root: Path) -> Path:
    place = root.joinpath(*name.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _root() -> Path:
    return Path(ray_jobs.__file__).parent
