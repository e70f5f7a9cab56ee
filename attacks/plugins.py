"""Loading a user's own code by name: "package.module:Name" or "path/to/file.py:Name"."""

import ast
import difflib
import hashlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

Folders = Sequence[str | Path]

_OURS = {"robustloss"}  # its versions are kept by hand, not by source


class PluginError(ValueError):
    """A name that cannot be turned into an object, or parameters that the object does not take."""


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
        module = _load_module(source, name, folders)
    try:
        return getattr(module, attribute)
    except AttributeError:
        defined = _defined_in(module)
        raise PluginError(
            f"plug-in '{name}': {source} has no '{attribute}'{did_you_mean(attribute, defined)} "
            f"It defines: {', '.join(defined) or 'nothing'}."
        ) from None


def source_digest(name: str, folders: Folders = ()) -> str:
    """Return 16 hex digits over the plug-in's source and that of the neighbours it imports.

    The plug-in is not executed (packages that hold it are). Code of installed packages other than
    its own does not count.

    Raises:
        PluginError: bad form, or no such file or module.
    """
    source, _ = _split(name)
    if source.endswith(".py"):
        path = _find_file(name, source, folders)
        files = imported_sources(path, path.stem, path.parent)
    else:
        with _importable([*folders, Path.cwd()]):
            path = _module_file(source, name)
        files = imported_sources(path, source, module_root(path, source))
    total = hashlib.sha256()
    for dotted, file in sorted(files.items()):
        content = file.read_bytes()
        total.update(f"{dotted}:{len(content)}:".encode() + content)
    return total.hexdigest()[:16]


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
    """Return "; did you mean 'x'?" for the closest known name, or a full stop."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."


def _split(name: str) -> tuple[str, str]:
    source, _, attribute = name.rpartition(":")
    dotted = all(part.isidentifier() for part in source.split("."))
    if not attribute.isidentifier() or not (source.endswith(".py") or dotted):
        raise PluginError(
            f"plug-in '{name}' must have the form 'package.module:Name' or 'path/to/file.py:Name'."
        )
    return source, attribute


def _find_file(name: str, source: str, folders: Folders) -> Path:
    path = Path(source).expanduser()
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
    _refuse_shadowed(path, name)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up here
    try:
        with _importable([path.parent]):
            # Not by the loader: its byte code cache goes by a time stamp of whole seconds.
            exec(compile(content, str(path), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _import_failure(name, error) from error
    return module


def _refuse_shadowed(path: Path, name: str) -> None:
    # Two plug-ins in two folders, each with a helper.py: the second would silently get the first's.
    for dotted, file in imported_sources(path, path.stem, path.parent).items():
        loaded = getattr(sys.modules.get(dotted), "__file__", None)
        if dotted != path.stem and loaded and Path(loaded).resolve() != file.resolve():
            raise PluginError(
                f"plug-in '{name}': it imports {file}, but a module '{dotted}' is already loaded "
                f"from {loaded}; rename one of them."
            )


def _load_module(source: str, name: str, folders: Folders) -> ModuleType:
    with _importable([*folders, Path.cwd()]):
        _module_file(source, name)
        try:
            return importlib.import_module(source)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise _import_failure(name, error) from error


def _module_file(source: str, name: str) -> Path:
    """Find a module without executing it; the packages around it are imported."""
    try:
        spec = importlib.util.find_spec(source)
    except ModuleNotFoundError as error:
        if error.name is None or not (source == error.name or source.startswith(f"{error.name}.")):
            raise _import_failure(name, error) from error
        spec = None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _import_failure(name, error) from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise PluginError(
            f"plug-in '{name}': there is no module '{source}'; install it, run from its folder, or "
            "name it by its file: 'path/to/file.py:Name'."
        )
    return Path(spec.origin)


def _import_failure(name: str, error: BaseException) -> PluginError:
    where = ""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
    if own:
        where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})"
    reason = f"{type(error).__name__}: {error}"
    return PluginError(f"plug-in '{name}': importing it failed: {reason}{where}.{_moved(error)}")


def _moved(error: BaseException) -> str:
    """Return the new import of a package of ours that was installed under a name of its own."""
    old = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if old not in ("attacks", "reports"):
        return ""
    return f" If it means robustloss: 'from {old} import' is now 'from robustloss.{old} import'."


def _defined_in(module: ModuleType) -> list[str]:
    return sorted(
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    )


@contextmanager
def _importable(folders: Folders) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(Path(folder).resolve()) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


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
