"""The structure of the package: imports point down, files stay small, nothing heavy is loaded, names are documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import house
import pytest
from house import module_name, room, tree

import scalefit

ROOT = Path(scalefit.__file__).parent
STOREYS = (
    "errors _values _version solvers theory",
    "vocabulary simulation",
    "display laws",
    "sweep schema",
    "curves fitting",
    "loading optima",
    "_datasets surface selection",
    "_bootstrap _fit",
    "backtesting batch_size",
    "plots",
    "refitting",
    "cli",
)
FLOORS = {name: floor for floor, names in enumerate(STOREYS) for name in names.split()}
MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = {"sympy", "lmfit", "matplotlib", "rich", "typer", "scipy", "pyarrow", "jinja2"}


def targets(path: Path) -> set[str]:
    """Return the modules of ours that a file imports; relative imports are refused."""
    relative = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, f"{path} imports relatively"
    return house.imports(path)


def test_every_module_has_a_floor():
    rooms = {room(module_name(path)) for path in MODULES} - {"", "__main__"}
    assert rooms <= set(FLOORS), f"give these rooms a floor: {rooms - set(FLOORS)}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down_or_stay_on_the_floor(path):
    """Also inside functions and under TYPE_CHECKING."""
    here = room(module_name(path))
    if here not in FLOORS:
        return  # the front door; a room without a floor fails above
    upward = {name for name in targets(path) if FLOORS.get(room(name), 0) > FLOORS[here]}
    assert not upward, f"{module_name(path)} (floor {FLOORS[here]}) imports {sorted(upward)} from above"
    assert "scalefit" not in targets(path), f"{module_name(path)} imports the front door"


def test_solvers_know_arrays_and_laws_know_no_solver():
    for path in MODULES:
        found = {room(name) for name in targets(path)}
        if room(module_name(path)) == "solvers":
            assert found <= {"solvers"}, path
            text = {
                n.name.split(".")[0]
                for node in ast.walk(tree(path))
                if isinstance(node, ast.Import)
                for n in node.names
            }
            assert "pandas" not in text, path
        if room(module_name(path)) == "laws":
            assert not found & {"solvers", "sweep schema", "loading"}, path


def test_importing_never_runs_in_circles():
    """Imports inside functions and for type checking count as well."""
    assert not house.circles()


def test_no_file_name_occurs_twice():
    assert not house.repeated_names()


def test_every_public_name_has_a_running_example():
    assert not house.without_example()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_file_is_longer_than_four_hundred_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_importing_loads_nothing_heavy():
    """Nothing but what pandas itself loads."""
    code = "import sys, pandas; before = set(sys.modules); import scalefit; print(*(sys.modules.keys() - before))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    loaded = set(answer.stdout.split())
    assert "scalefit" in loaded
    assert not loaded & HEAVY


def public_definitions(path: Path) -> list[ast.AST]:
    """Return the module, its public classes and functions, and the public methods of those classes."""
    found: list[ast.AST] = [tree(path)]
    layers = [tree(path).body]
    while layers:
        for node in layers.pop():
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            overload = any(getattr(decorator, "id", "") == "overload" for decorator in node.decorator_list)
            if not node.name.startswith("_") and not overload:
                found.append(node)
                layers += [node.body] if isinstance(node, ast.ClassDef) else []
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_everything_public_has_a_docstring(path):
    bare = [getattr(node, "name", path.name) for node in public_definitions(path) if not ast.get_docstring(node)]
    assert not bare


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_stub_and_nothing_left_to_do(path):
    text = path.read_text(encoding="utf-8")
    for word in ("TODO", "FIXME", "XXX", "NotImplementedError"):
        assert word not in text


def test_what_is_exported_is_there_and_documented():
    assert len(scalefit.__all__) == len(set(scalefit.__all__))
    for name in scalefit.__all__:
        assert getattr(scalefit, name).__doc__, name


def test_no_test_measures_time():
    clocks = {"perf_counter", "perf_counter_ns", "process_time", "timeit"}
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        used = {n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "") for n in ast.walk(tree(path))}
        assert not used & clocks, path


def test_every_public_name_is_there_and_listed():
    assert set(dir(scalefit)) == set(scalefit.__all__)
    for name in scalefit.__all__:
        assert getattr(scalefit, name) is not None
    with pytest.raises(AttributeError, match="fit_magic"):
        scalefit.fit_magic  # noqa: B018 - the access is the test
