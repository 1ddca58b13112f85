"""Figures on the structure of the package: modules, code lines, repeated names, import circles, files a call enters.

python benchmarks/house.py

Code lines hold no blanks, comments or docstrings. Circles count imports inside functions and for type checking too.
"Files entered" are those of ours in which a call runs a function, once everything is loaded.
"""

from __future__ import annotations

import ast
import collections
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import scalefit as sf

ROOT = Path(sf.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NUMERICAL = ("optima", "fitting", "surface", "solvers")
_EMPTY = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@cache
def tree(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    """Return the dotted name by which a file is imported."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str:
    """Return the folder or root module that a module belongs to; the front door has none."""
    return name.split(".")[1] if "." in name else ""


def lines_of(path: Path) -> tuple[int, int]:
    """Count code lines and comments of a file."""
    prose: set[int] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code: set[int] = set()
    comments = 0
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        comments += token.type == tokenize.COMMENT
        if token.type not in _EMPTY and token.type != tokenize.COMMENT:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - prose), comments


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports anywhere, inside functions and for type checking too."""
    known = {module_name(file) for file in FILES}
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scalefit":
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "scalefit"}
    return found - {module_name(path)}


def circles() -> set[frozenset[str]]:
    """Return the sets of modules that import each other, directly or by way of others."""
    graph = {module_name(path): imports(path) for path in FILES}
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += graph.get(name, ())
        reach[start] = seen
    return {frozenset(w for w in reach[v] if v in reach.get(w, ())) for v in graph if v in reach[v]}


def repeated_names() -> list[str]:
    """Return the file names that occur twice, a leading underscore aside."""
    names = collections.Counter(path.name.lstrip("_") for path in FILES if not path.name.startswith("__"))
    return sorted(name for name, count in names.items() if count > 1)


def entered(call: Callable[[], Any]) -> list[str]:
    """Return the files of ours in which a call runs a function; it is made once before, so that all is loaded."""
    call()
    seen: set[str] = set()

    def look(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            seen.add(frame.f_code.co_filename)

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return sorted(str(Path(name).relative_to(ROOT)) for name in seen)


def public_objects() -> Iterator[tuple[str, Any]]:
    """Yield every public function and class with the name by which users call it."""
    rooms = ("laws", "plots", "simulation", "theory", "refitting")
    for module in (sf, *(getattr(sf, name) if hasattr(sf, name) else _import(name) for name in rooms)):
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                yield f"{module.__name__}.{name}", value


def _import(name: str) -> Any:
    import importlib

    return importlib.import_module(f"scalefit.{name}")


def without_example() -> list[str]:
    """Return the public names whose docstring holds no running example; errors and warnings need none."""
    found = {name: value for name, value in public_objects() if not _is_error(value)}
    return sorted(
        name for name, value in found.items() if not re.search(r"^\s*>>> ", value.__doc__ or "", re.MULTILINE)
    )


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def lengths_of_functions() -> list[int]:
    """Return the length of every function in lines, its docstring left out."""
    found = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                prose = ast.get_docstring(node, clean=False)
                found.append(
                    (node.end_lineno or node.lineno) - node.lineno + 1 - (prose.count("\n") + 1 if prose else 0)
                )
    return found


def main_calls() -> dict[str, Callable[[], Any]]:
    """Return the calls whose walk is measured, on the bundled sweep."""
    sweep = sf.load_dataset("tiny-lm")
    table = sf.find_optima(sweep, over="lr").table.dropna(subset=["lr"])
    return {
        "fit": lambda: sf.fit("lr_power_batch", table),
        "fit_surface": lambda: sf.fit_surface(sweep),
        "backtest": lambda: sf.backtest(sweep, "largest params"),
    }


def main() -> None:
    """Print the figures."""
    code, comments, files = collections.Counter[str](), collections.Counter[str](), collections.Counter[str]()
    for path in FILES:
        lines, remarks = lines_of(path)
        where = path.relative_to(ROOT).parts[0] if path.parent != ROOT else "(root)"
        code[where] += lines
        comments[where] += remarks
        files[where] += 1
    for where, lines in code.most_common():
        print(
            f"{where:14} {files[where]:3} files {lines:6} code lines {100 * comments[where] / lines:5.1f} comments/100"
        )
    numerical = sum(comments[name] for name in NUMERICAL) / sum(code[name] for name in NUMERICAL)
    lengths = lengths_of_functions()
    print(f"modules {len(FILES)}, code lines {sum(code.values())}, names twice {len(repeated_names())}")
    print(f"comments per 100 code lines in {', '.join(NUMERICAL)}: {100 * numerical:.1f}")
    print(f"circles {len(circles())}; functions: median {statistics.median(lengths):.0f}, longest {max(lengths)} lines")
    print(f"public names {len(sf.__all__)} at the root; without an example: {', '.join(without_example()) or 'none'}")
    for name, call in main_calls().items():
        print(f"{name} enters {len(entered(call))} files")


if __name__ == "__main__":
    main()
