"""Which files of the user's own a module imports, read from the text without running it."""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_OURS = {"robustloss"}  # its versions are kept by hand, not by source


def imported_sources(path: Path, dotted: str, root: Path) -> dict[str, Path]:
    """Follow a module's imports to the files under its root, itself included.

    Args:
        path: the module's file.
        dotted: its name as seen from the root, such as "package.module".
        root: the folder from which its neighbours are imported. Below an installation's library
            folder only the module's own top-level package is followed.

    Returns:
        Dotted names and files.
    """
    only = dotted.split(".")[0] if root in _library_folders() else None
    found: dict[str, Path] = {}
    waiting = [(dotted, path)]
    while waiting:
        name, file = waiting.pop()
        if name in found:
            continue
        found[name] = file
        if file.suffix != ".py":
            continue  # an extension module: its bytes count, its imports cannot be read
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for target in _imports(file, package):
            top = target.split(".")[0]
            if top not in _OURS and only in (None, top):
                waiting += _files(target, root)
    return found


def module_root(path: Path, dotted: str) -> Path:
    """Return the folder from which a module of this file and name is imported."""
    depth = dotted.count(".") + (path.name == "__init__.py")
    return path.resolve().parents[depth]


def _library_folders() -> set[Path]:
    return {
        Path(folder).resolve()
        for key, folder in sysconfig.get_paths().items()
        if key in ("stdlib", "platstdlib", "purelib", "platlib")
    }


def _imports(file: Path, package: str) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # importing it will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # may be a submodule


def _files(dotted: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the module and the packages around it, as far as they are files under the root."""
    parts = dotted.split(".")
    for depth in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:depth])
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                yield ".".join(parts[:depth]), file
                break
