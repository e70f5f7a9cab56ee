"""Loading a user's own code by name: "package.module:Name" or "path/to/file.py:Name".

Reading order: `load_object` imports what a name points at, `source_digest` says which text it
rests on, `check_parameters` refuses what it does not take.
"""

import ast
import difflib
import hashlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from robustloss.attacks.patches import find_replaced, list_functions
from robustloss.attacks.settings import preserving_settings

Folders = Sequence[str | Path]

_OURS = "robustloss"  # its versions are kept by hand, not by source
RESERVED = frozenset(("pml", "criterion", "torchattacks", "torchvision", "timm", "transformers"))
"""Prefixes that stand for a package in one place each, as `spec.prefixes` says. They are never
imported by name: a file of that name in a given folder would run in the package's place."""


class PluginError(ValueError):
    """A name that cannot be turned into an object, or parameters that the object does not take."""


# --- loading --------------------------------------------------------------------------------


def load_object(name: str, folders: Folders = ()) -> Any:
    """Import what a name points at.

    A file's own folder (for a module: `folders` and the working directory) is importable while it
    is loaded, and only then. The same file gives the same object until its text changes.

    Args:
        name: "package.module:Name" or "path/to/file.py:Name".
        folders: where a relative path is looked for first; then in the working directory.

    Raises:
        PluginError: bad form, no such file, module or name, or an error while importing it.
    """
    source, attribute = _split(name)
    if source.endswith(".py"):
        module = _load_file(_find_file(name, source, folders), name)
    else:
        with _importing_from([*folders, Path.cwd()]):
            _find_module(source, name)
            with _refusing_failures(name):
                module = importlib.import_module(source)
    if not hasattr(module, attribute):
        defined = sorted(
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        )
        raise PluginError(
            f"plug-in '{name}': {source} has no '{attribute}'{did_you_mean(attribute, defined)} "
            f"It defines: {', '.join(defined) or 'nothing'}."
        )
    return getattr(module, attribute)


def _split(name: str) -> tuple[str, str]:
    if (prefix := name.partition(":")[0]) in RESERVED:
        raise PluginError(
            f"plug-in '{name}': '{prefix}:' stands for a package, and not here. Name your own code "
            "by its file or module: 'path/to/file.py:Name' or 'package.module:Name'."
        )
    source, _, attribute = name.rpartition(":")
    dotted = all(part.isidentifier() for part in source.split("."))
    if not attribute.isidentifier() or not (source.endswith(".py") or dotted):
        raise PluginError(
            f"plug-in '{name}' must have the form 'package.module:Name' or 'path/to/file.py:Name'."
        )
    return source, attribute


def _find_file(name: str, source: str, folders: Folders) -> Path:
    path = Path(os.path.expanduser(source))
    places = [Path(folder) for folder in folders] + [Path.cwd()]
    candidates = [path] if path.is_absolute() else [place / path for place in places]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    looked = ", ".join(dict.fromkeys(str(candidate.parent) for candidate in candidates))
    raise PluginError(f"plug-in '{name}': there is no file {path.name} in {looked}.")


def _load_file(path: Path, name: str) -> ModuleType:
    content = path.read_bytes()
    digest = hashlib.sha256(f"{path}:".encode() + content).hexdigest()[:16]
    module_name = f"plugin_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    # Two plug-ins in two folders, each with a helper.py: the second would silently get the first's.
    for dotted, file in follow_imports(path, path.stem, path.parent).items():
        loaded = getattr(sys.modules.get(dotted), "__file__", None)
        if dotted != path.stem and loaded and Path(loaded).resolve() != file.resolve():
            raise PluginError(
                f"plug-in '{name}': it imports {file}, but a module '{dotted}' is already loaded "
                f"from {loaded}; rename one of them."
            )
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up here
    try:
        with _importing_from([path.parent]), _refusing_failures(name):
            # Not by the loader: its byte code cache goes by a time stamp of whole seconds.
            exec(compile(content, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _find_module(source: str, name: str) -> Path:
    """Find a module's file without executing it; the packages around it are imported."""
    with _refusing_failures(name):
        try:
            spec = importlib.util.find_spec(source)
        except ModuleNotFoundError as error:
            # Either a package around it is missing, or one is there and imports what is missing.
            if error.name is None or not f"{source}.".startswith(f"{error.name}."):
                raise
            spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise PluginError(
            f"plug-in '{name}': there is no module '{source}'; install it, run from its folder, or "
            "name it by its file: 'path/to/file.py:Name'."
        )
    return Path(spec.origin)


@contextmanager
def _importing_from(folders: Folders) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(Path(folder).resolve()) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _refusing_failures(name: str) -> Iterator[None]:
    """Raise a PluginError that says where the plug-in's code failed, whatever it raised.

    What it set for the whole process is put back. Functions of others that it replaced are put back
    too, and refused: every number after that would be another.
    """
    before = list_functions()
    try:
        with preserving_settings():
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        where = hint = ""
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
        if own:
            where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})"
        # Packages of ours that were once installed under a name of their own.
        old = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
        if old in ("attacks", "reports"):
            hint = (
                f" If it means robustloss: 'from {old} import' is now 'from {_OURS}.{old} import'."
            )
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"plug-in '{name}': importing it failed: {reason}{where}.{hint}"
        ) from error
    if replaced := find_replaced(before):
        raise PluginError(
            f"plug-in '{name}': importing it replaces {', '.join(replaced[:3])}, on which the "
            "numbers of all others rest; call functions of its own instead."
        )


# --- digest ---------------------------------------------------------------------------------


def source_digest(name: str, folders: Folders = ()) -> str:
    """Return 16 hex digits over the plug-in's source and that of the neighbours it imports.

    The plug-in is not executed (packages that hold it are). Code of installed packages other than
    its own does not count.

    Args: as for `load_object`.

    Raises:
        PluginError: bad form, or no such file or module.
    """
    source, _ = _split(name)
    if source.endswith(".py"):
        path = _find_file(name, source, folders)
        files = follow_imports(path, path.stem, path.parent)
    else:
        with _importing_from([*folders, Path.cwd()]):
            path = _find_module(source, name)
        files = follow_imports(path, source, find_root(path, source))
    total = hashlib.sha256()
    for dotted, file in sorted(files.items()):
        content = file.read_bytes()
        total.update(f"{dotted}:{len(content)}:".encode() + content)
    return total.hexdigest()[:16]


def follow_imports(path: Path, dotted: str, root: Path) -> dict[str, Path]:
    """Follow a module's imports to the files under its root, itself included.

    Args:
        path: the module's file.
        dotted: its name as seen from the root, such as "package.module".
        root: the folder from which its neighbours are imported. Below an installation's library
            folder only the module's own top-level package is followed.

    Returns:
        Dotted names and files.
    """
    libraries = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = root in {Path(sysconfig.get_paths()[key]).resolve() for key in libraries}
    only = dotted.split(".")[0] if installed else None
    files: dict[str, Path] = {}
    waiting = [(dotted, path)]
    while waiting:
        name, file = waiting.pop()
        if name in files:
            continue
        files[name] = file
        if file.suffix != ".py":
            continue  # an extension module: its bytes count, its imports cannot be read
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for target in _list_imports(file, package):
            parts = target.split(".")
            if parts[0] == _OURS or only not in (None, parts[0]):
                continue
            # The module and the packages around it, as far as they are files under the root.
            for depth in range(1, len(parts) + 1):
                stem = root.joinpath(*parts[:depth])
                candidates = (stem.with_suffix(".py"), stem / "__init__.py")
                waiting += [(".".join(parts[:depth]), c) for c in candidates if c.is_file()][:1]
    return files


def _list_imports(file: Path, package: str) -> Iterator[str]:
    """Yield the dotted names that a file imports; `package` is where its relative ones begin."""
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


def find_root(path: Path, dotted: str) -> Path:
    """Return the folder from which a module is imported.

    Args:
        path: the module's file.
        dotted: its name, such as "package.module".
    """
    depth = dotted.count(".") + (path.name == "__init__.py")
    return path.resolve().parents[depth]


# --- parameters -----------------------------------------------------------------------------


def check_parameters(
    call: Callable[..., Any], params: Mapping[str, object], name: str, given: Iterable[str] = ()
) -> None:
    """Refuse parameters that a callable does not take, and missing ones that it requires.

    Args:
        call: a class or function.
        params: keyword arguments to be passed.
        name: what messages call it.
        given: parameters that the caller fills itself.

    Raises:
        PluginError: "name.parameter: unknown parameter; did you mean ...".
    """
    given = set(given)
    own = [p for p in inspect.signature(call).parameters.values() if p.name not in given]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in own)
    own = [p for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [p.name for p in own]
    for key in params:
        if key in given or not (open_ended or key in known):
            takes = f"It takes: {', '.join(known)}." if known else "It takes none."
            raise PluginError(f"{name}.{key}: unknown parameter{did_you_mean(key, known)} {takes}")
    missing = [p.name for p in own if p.default is p.empty and p.name not in params]
    if missing:
        raise PluginError(f"{name}.{missing[0]}: missing; this parameter has no default.")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest known name, or a full stop.

    Args:
        name: what was asked for.
        known: the names that there are.
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."
