"""The arrows of the house: who may import whom, what stays free of torch, how large a room gets."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import robustloss

ROOT = Path(robustloss.__file__).parent.parent
SOURCES = ("attacks", "robustloss", "reports")
TORCH = {"torch", "torchvision", "torchattacks"}
MOST_MODULES = 16  # in a folder: more than that has no order that a reader could keep in mind

# Which room of robustloss may import which others. The package's own root is free to all, and
# cli may import everything.
MAY_IMPORT = {
    "run_files": "",
    "work_folders": "run_files",
    "storage": "run_files",
    "array_files": "storage",
    "image_files": "run_files storage",
    "seeding": "",
    "progress": "notation",
    "notation": "",
    "build_backend": "",
    "attacks": "notation",
    "metrics": "",
    "spec": "notation",
    "results": "storage array_files image_files notation",
    "analysis": "run_files image_files notation metrics spec results",
    "reports": "run_files work_folders notation metrics spec results analysis",
    # above: free of torch but for attacks; below: with torch
    "losses": "attacks",
    "data": "work_folders storage seeding notation spec attacks",
    "models": "run_files storage spec attacks data losses",
    "training": "storage seeding spec attacks data losses models",
    "evaluation": "seeding notation metrics results attacks data losses models",
    "cells": "run_files storage array_files image_files seeding progress spec results analysis "
    "attacks data losses models training evaluation",
    "runs": "run_files work_folders storage array_files image_files seeding progress notation "
    "metrics spec results analysis attacks data losses models training evaluation cells reports",
}
FREE_OF_TORCH = (
    "run_files",
    "work_folders",
    "storage",
    "array_files",
    "image_files",
    "progress",
    "notation",
    "metrics",
    "spec",
    "results",
    "analysis",
    "reports",
)

# Inside a room, from low to high: a module imports its own floor's part or what lies below.
FLOORS: dict[str, list[set[str]]] = {
    "analysis": [
        {"outcomes", "learning", "worst_images"},
        {"detection", "checks"},
        {"measures", "subjects"},
        {"tables"},
        {"unfinished"},
        {"gates.verdict"},
        {"baseline"},
        {"gates"},
        {""},
    ],
    "reports": [
        {"words"},
        {"reading"},
        {"drawing"},
        {
            f"chapters.{name}"
            for name in (
                *("result", "paper", "detection", "differences", "confidence", "space"),
                *("images", "run"),
            )
        }
        | {"chapters"},
        {"page"},
        {""},
    ],
    "attacks": [
        {"noise", "patches", "settings", "cuda_graphs"},
        {"plugins"},
        {"base"},
        {"ball", "arguments", "sealing"},
        {"objectives", "functions", "witness"},
        {"draws"},
        {"harness", "bounded", "nearest", "adapted"},
        {"adaptive"},
        {"build"},
        {""},
    ],
}


@dataclass(frozen=True)
class Import:
    """One imported module; late when the statement does not run as the importer is loaded."""

    name: str
    late: bool


@cache
def modules() -> dict[str, Path]:
    """Returns the file of every module of ours by the name that it is imported by."""
    found = {}
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            if any(above.is_symlink() for above in path.parents):
                continue  # robustloss/attacks, which is attacks
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(parts if source == "robustloss" else ("robustloss", *parts))] = path
    return found


@cache
def imports(module: str) -> frozenset[Import]:
    """Returns what a module imports, wherever in it the statement stands."""
    return frozenset(_walk(ast.parse(modules()[module].read_text()), late=False))


def _walk(node: ast.AST, *, late: bool) -> list[Import]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found += [Import(alias.name, late) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative import: write the full name"
            assert child.module is not None
            # "from package import module" means the module, "from module import name" the first.
            inner = {f"{child.module}.{alias.name}" for alias in child.names}
            asked = inner & set(modules())
            found += [
                Import(name, late) for name in asked | ({child.module} if inner - asked else set())
            ]
        deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        found += _walk(child, late=late or deferred or typing_only)
    return found


def ours(module: str, *, late: bool = True) -> set[str]:
    """Returns our modules that a module imports; late=False: those loaded together with it."""
    names = {found.name for found in imports(module) if late or not found.late}
    return {name for name in names if name.split(".")[0] == "robustloss"} - {module}


def theirs(module: str, *, late: bool) -> set[str]:
    """Returns the top-level names of other people's packages that a module imports."""
    names = {found.name.split(".")[0] for found in imports(module) if late or not found.late}
    return names - {"robustloss"}


def loaded_with(module: str, *, late: bool = False) -> set[str]:
    """Returns every module of ours that loading one loads, packages above each included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules():
            continue
        seen.add(name)
        parent = name.rpartition(".")[0]
        waiting += [*ours(name, late=late), *([parent] if parent else [])]
    return seen


def room(module: str) -> str:
    """Returns the name below robustloss, such as "cells"; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> tuple[int, str]:
    """Returns on which floor of its room a module stands, and in which part of that floor."""
    inner = module.split(".", 2)[2] if module.count(".") > 1 else ""
    for number, parts in enumerate(FLOORS[room(module)]):
        for part in parts:
            if inner == part or (part and inner.startswith(f"{part}.")):
                return number, part
    raise AssertionError(f"{module} stands on no floor of its room")


def in_rooms(*names: str) -> list[str]:
    return sorted(module for module in modules() if room(module) in names)


def test_every_imported_module_of_ours_exists():
    for module in modules():
        assert ours(module) <= set(modules()), module


def test_a_room_imports_only_what_it_may():
    broken = {
        f"{module} imports {name}"
        for module in modules()
        if room(module) not in ("", "cli", "__main__")
        for name in ours(module)
        if room(name) not in ("", room(module), *MAY_IMPORT[room(module)].split())
    }
    assert not broken


def test_every_permission_is_used():
    used = {(room(module), room(name)) for module in modules() for name in ours(module)}
    permitted = {(who, whom) for who, all_ in MAY_IMPORT.items() for whom in all_.split()}
    assert permitted <= used, permitted - used
    assert set(MAY_IMPORT) | {"", "cli", "__main__"} == {room(module) for module in modules()}


@pytest.mark.parametrize("name", FLOORS)
def test_inside_a_room_imports_lead_down(name):
    broken = set()
    for module in in_rooms(name):
        number, part = floor(module)
        for target in ours(module):
            own = room(target) == name and floor(target) != (number, part)
            if own and floor(target)[0] >= number:
                broken.add(f"{module} imports {target}")
    assert not broken


def test_imports_run_in_no_circle_not_even_late_or_for_types():
    graph = {
        module: ours(module) - {"robustloss"}
        for module in modules()
        if module != "robustloss"  # which imports its public names when they are asked for
    }
    list(graphlib.TopologicalSorter(graph).static_order())


def test_no_folder_holds_more_modules_than_one_can_keep_in_mind():
    counts = Counter(path.parent for path in modules().values() if path.name != "__init__.py")
    assert not {folder: n for folder, n in counts.items() if n > MOST_MODULES}


def test_science_without_torch_reaches_no_torch_even_later():
    for start in in_rooms(*FREE_OF_TORCH):
        for module in loaded_with(start, late=True) - {"robustloss"}:
            assert not theirs(module, late=True) & TORCH, f"{start} -> {module}"


def test_command_line_loads_torch_only_inside_commands():
    for module in loaded_with("robustloss.cli.commands"):
        assert not theirs(module, late=False) & TORCH, module


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_robustloss_imports_nothing_heavy():
    heavy = {*TORCH, "numpy", "pydantic", "scipy", "sklearn", "matplotlib", "rich", "typer"}
    loaded = run_python("import sys, robustloss; print(*sys.modules)").split()
    assert "robustloss" in loaded
    assert not heavy & set(loaded)


def test_the_report_does_not_load_what_costs_half_of_its_start():
    loaded = run_python("import sys, robustloss.reports.page.build; print(*sys.modules)").split()
    assert "matplotlib.figure" in loaded
    assert not {"scipy.stats", "scipy.optimize", "scipy.spatial", "sklearn", "rich"} & set(loaded)


def test_torch_free_modules_and_the_report_load_where_there_is_no_torch():
    names = [*in_rooms(*FREE_OF_TORCH), "robustloss.cli.commands"]
    code = f"""
import importlib, importlib.abc, sys
class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {TORCH!r}:
            raise ModuleNotFoundError(f"no {{name}} on this machine", name=name)
sys.meta_path.insert(0, NoTorch())
try:
    import torch
except ModuleNotFoundError:
    print("blocked")
for name in {names!r}:
    importlib.import_module(name)
    print(name)
"""
    assert run_python(code).split() == ["blocked", *names]


@pytest.mark.parametrize("name", robustloss.__all__)
def test_each_public_name_is_a_function_that_no_module_hides(name):
    assert callable(getattr(robustloss, name))
    assert f"robustloss.{name}" not in modules()


def test_dir_shows_the_public_names_only():
    assert [name for name in dir(robustloss) if not name.startswith("__")] == sorted(
        robustloss.__all__
    )


def test_the_public_names_of_the_design_are_there():
    asked = {"load_spec", "run", "evaluate", "build_report", "load_run", "load_classifier"}
    assert asked <= set(robustloss.__all__)


def test_unknown_public_name_is_refused():
    with pytest.raises(AttributeError, match="module 'robustloss' has no attribute 'lode_spec'"):
        robustloss.lode_spec  # noqa: B018
