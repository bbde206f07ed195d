"""The parts of the README that the code writes itself: `python -m tests.readme` renews them.

A test compares them, so the README cannot drift from the code.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ray_jobs import recipe, settings
from ray_jobs.families import families, family, recipes

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
LAYERS = ("flows", "tasks", "ray_jobs")
FIELD = re.compile(r"^    (\w+): [^=\n]+= ([^#\n]+?)(?:\s+# (.+))?$", re.MULTILINE)


def tree() -> str:
    """Every source file with the first line of its docstring."""
    lines = ["```"]
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            text = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
            lines.append(f"{path.relative_to(ROOT).as_posix():<52} {text}")
    return "\n".join([*lines, "```"])


def settings_table() -> str:
    """Every setting of an installation with its variable, default and meaning."""
    rows = [
        (f"`{name}`", f"`{settings.variable(name)}`", f"`{default}`", meaning)
        for name, default, meaning in _fields(settings.Settings)
    ]
    return _table(("setting", "variable", "default", "meaning"), rows)


def recipe_table() -> str:
    """Every setting of a recipe, as `--set` names it."""
    parts: dict[str, Any] = {
        "budget.": recipe.Budget,
        "split.": recipe.Split,
        "start.": recipe.Start,
        "gate.": recipe.Gate,
        "resources.": recipe.Resources,
    }
    for name in families():
        columns = next(iter(family(name).recipes.values()))().columns
        parts[f"{name}: columns."] = type(columns)
    rows = [
        (f"`{prefix.rsplit(': ', 1)[-1]}{name}`", of, f"`{default}`", meaning)
        for prefix, kind in parts.items()
        for of in [prefix.split(": ")[0] if ": " in prefix else "all"]
        for name, default, meaning in _fields(kind)
    ]
    return _table(("setting", "family", "default", "meaning"), rows)


def recipes_table() -> str:
    """Every recipe with the first line of its docstring."""
    rows = []
    for name, make in recipes().items():
        about = (make.__doc__ or "").strip().splitlines()[0]
        rows.append((f"`{name}`", f"`{make().service}`", about))
    return _table(("recipe", "service", "what it is"), rows)


SECTIONS: dict[str, Callable[[], str]] = {
    "tree": tree,
    "settings": settings_table,
    "recipe settings": recipe_table,
    "recipes": recipes_table,
}


def renewed(text: str) -> str:
    """A README with every written section as the code has it now."""
    for name, write in SECTIONS.items():
        begin, end = f"<!-- {name}: written by the code -->", f"<!-- /{name} -->"
        assert text.count(begin) == text.count(end) == 1, f"README.md lacks the section {name!r}"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{write()}\n{end}{rest.split(end)[1]}"
    return text


def _fields(kind: type) -> Iterable[tuple[str, str, str]]:
    for name, default, meaning in FIELD.findall(inspect.getsource(kind)):
        plain = default.strip().removeprefix("Path(").removesuffix(")").strip('"')
        yield name, plain or " ", meaning


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
