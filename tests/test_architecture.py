"""The arrows of the house: who may import whom, and what stays free of torch."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import robustloss

ROOT = Path(robustloss.__file__).parent.parent
PACKAGES = ("attacks", "robustloss", "reports")
TORCH = {"torch", "torchvision", "torchattacks"}

SCIENCE_WITHOUT_TORCH = {
    f"robustloss.{name}" for name in ("spec", "results", "metrics", "statistics", "detection")
}
SUPPORT_WITHOUT_TORCH = {
    f"robustloss.{name}"
    for name in (
        *("storage", "progress", "attack_kinds", "checks", "checks_records", "checks_probe"),
        *("bootstrap", "auroc_interval"),
        *(
            "worst_case",
            "adaptive",
            "transfer",
            "summary",
            "tables",
            "columns",
            "outcomes",
            "crops",
            "auroc_interval",
            "bootstrap",
            "paired_tests",
            "comparisons",
            "scores",
            "scores_fitted",
            "scored",
            "calibration",
            "ranks",
            "results_shape",
            "layout",
            "merging",
            "comparable",
            "finished_cell",
        ),
    )
}
WITH_TORCH = {
    f"robustloss.{name}"
    for name in (
        *("losses", "losses.base", "models", "data", "seeding"),
        *("train", "evaluation", "runner", "executors"),
    )
}


@dataclass(frozen=True)
class Import:
    """One imported module; late when the statement does not run as the importer is loaded."""

    name: str
    late: bool


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[Import]:
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


def ours(module: str, *, late: bool) -> set[str]:
    """Our modules that `module` imports; with late=False only those loaded together with it."""
    names = {found.name for found in imports(module) if late or not found.late}
    return {name for name in names if name.split(".")[0] in PACKAGES}


def loaded_with(module: str) -> set[str]:
    """Every module of ours that loading `module` loads, packages above each included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules():
            continue
        seen.add(name)
        parent = name.rpartition(".")[0]
        waiting += [*ours(name, late=False), *([parent] if parent else [])]
    return seen


def outside(module: str, *, late: bool) -> set[str]:
    """Top-level names of other people's packages that `module` imports."""
    return {f.name.split(".")[0] for f in imports(module) if late or not f.late} - set(PACKAGES)


def test_the_modules_of_the_design_exist():
    required = SCIENCE_WITHOUT_TORCH | SUPPORT_WITHOUT_TORCH | WITH_TORCH
    assert required | {"robustloss.cli", *PACKAGES} <= set(modules())


def test_every_imported_module_of_ours_exists():
    for module in modules():
        assert ours(module, late=True) <= set(modules()), module


def test_attacks_import_nothing_of_ours():
    for module in modules():
        if module.split(".")[0] == "attacks":
            strangers = {n for n in ours(module, late=True) if n.split(".")[0] != "attacks"}
            assert not strangers, f"{module} imports {strangers}"


def test_reports_import_only_what_is_free_of_torch():
    allowed = SCIENCE_WITHOUT_TORCH | SUPPORT_WITHOUT_TORCH | {"robustloss"}
    for module in modules():
        if module.split(".")[0] == "reports":
            used = {n for n in ours(module, late=True) if n.split(".")[0] != "reports"}
            assert used <= allowed, f"{module} imports {used - allowed}"
            assert not outside(module, late=True) & TORCH, module


def test_science_without_torch_reaches_no_torch_even_later():
    for start in sorted(SCIENCE_WITHOUT_TORCH | SUPPORT_WITHOUT_TORCH):
        for module in loaded_with(start) - {"robustloss"}:
            assert not outside(module, late=True) & TORCH, f"{start} -> {module}"
            assert not ours(module, late=True) & WITH_TORCH, f"{start} -> {module}"


def test_command_line_loads_torch_only_inside_commands():
    for module in loaded_with("robustloss.cli"):
        assert not outside(module, late=False) & TORCH, module


def test_only_the_run_and_the_command_line_know_the_report():
    knowing = {
        module
        for module in modules()
        if module.split(".")[0] == "robustloss"
        and any(name.split(".")[0] == "reports" for name in ours(module, late=True))
    }
    assert knowing <= {"robustloss.runner", "robustloss.cli"}


def test_the_science_does_not_know_the_run():
    above = {f"robustloss.{name}" for name in ("cli", "runner", "executors", "cells")}
    below = SCIENCE_WITHOUT_TORCH | {f"robustloss.{name}" for name in ("data", "models", "seeding")}
    below |= {"robustloss.train", "robustloss.evaluation"}
    below |= {module for module in modules() if module.startswith("robustloss.losses")}
    for module in below:
        assert not ours(module, late=True) & above, module


def test_imports_run_in_no_circle():
    graph = {module: ours(module, late=False) - {module} for module in modules()}
    list(graphlib.TopologicalSorter(graph).static_order())


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


def test_torch_free_modules_and_the_report_load_where_there_is_no_torch():
    names = sorted(SCIENCE_WITHOUT_TORCH | SUPPORT_WITHOUT_TORCH | {"robustloss.cli"})
    names += sorted(module for module in modules() if module.split(".")[0] == "reports")
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


@pytest.mark.parametrize(
    "name", ["load_spec", "run", "evaluate", "build_report", "load_run", "load_classifier"]
)
def test_each_public_name_is_a_function_that_no_module_hides(name):
    assert callable(getattr(robustloss, name))
    assert name in robustloss.__all__
    assert f"robustloss.{name}" not in modules()


def test_unknown_public_name_is_refused():
    with pytest.raises(AttributeError, match="module 'robustloss' has no attribute 'lode_spec'"):
        robustloss.lode_spec  # noqa: B018
