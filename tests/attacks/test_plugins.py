import pickle
import sys
from pathlib import Path

import pytest

from robustloss.attacks.plugins import PluginError, load_object, source_digest


@pytest.fixture(autouse=True)
def _clean_modules(monkeypatch):
    """Modules that a test imports are forgotten after it, as between two runs."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name.startswith(("plugin_", "ours_")):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_file_and_module_forms(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path, "single.py", "class Thing:\n    size = 4\n")
    assert load_object(f"{path}:Thing").size == 4
    write(tmp_path, "ours_pkg/__init__.py", "")
    write(tmp_path, "ours_pkg/deep.py", "def thing():\n    return 5\n")
    monkeypatch.chdir(tmp_path)  # a console script has no working directory on its path
    assert load_object("ours_pkg.deep:thing")() == 5
    assert load_object("single.py:Thing").size == 4


def test_module_in_a_given_folder(tmp_path: Path) -> None:
    write(tmp_path, "ours_lone.py", "value = 6\n")
    assert load_object("ours_lone:value", [tmp_path]) == 6


def test_folders_come_before_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "spec", "which.py", "value = 'spec'\n")
    write(tmp_path / "here", "which.py", "value = 'here'\n")
    monkeypatch.chdir(tmp_path / "here")
    assert load_object("which.py:value", [tmp_path / "spec"]) == "spec"
    assert load_object("which.py:value") == "here"


def test_the_same_file_gives_the_same_class(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path, "same.py", "class Thing: pass\n")
    first = load_object(f"{path}:Thing")
    monkeypatch.chdir(tmp_path)
    assert load_object("./same.py:Thing") is first
    assert pickle.loads(pickle.dumps(first)) is first


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "changing.py", "value = 1\n")
    assert load_object(f"{path}:value") == 1
    write(tmp_path, "changing.py", "value = 2\n")  # same size, same second
    assert load_object(f"{path}:value") == 2


def test_neighbours_are_importable_while_loading_and_the_path_is_as_before(tmp_path: Path) -> None:
    write(tmp_path, "ours_helper.py", "value = 7\n")
    path = write(tmp_path, "user.py", "from ours_helper import value\n")
    before = list(sys.path)
    assert load_object(f"{path}:value") == 7
    assert sys.path == before
    write(tmp_path, "broken.py", "import ours_helper\n1 / 0\n")
    with pytest.raises(PluginError):
        load_object(f"{tmp_path / 'broken.py'}:value")
    assert sys.path == before


def test_a_neighbour_of_the_same_name_elsewhere_is_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder, "ours_common.py", f"value = '{folder}'\n")
        write(tmp_path / folder, "user.py", "from ours_common import value\n")
    assert load_object(f"{tmp_path}/a/user.py:value") == "a"
    with pytest.raises(PluginError, match=r"module 'ours_common' is already loaded from .*rename"):
        load_object(f"{tmp_path}/b/user.py:value")


BAD = {
    "form": ("nothing", r"'nothing' must have the form 'package.module:Name' or 'path/to/file.py"),
    "no name": ("module:", "must have the form"),
    "no identifier": ("module:a-b", "must have the form"),
    "other file": ("notes.txt/x:Name", "must have the form"),
    "no file": ("absent.py:Name", r"there is no file absent.py in /\S+"),
    "no module": ("ours_absent:Name", "there is no module 'ours_absent'; install it, run from"),
    "no submodule": ("json.absent:Name", "there is no module 'json.absent'"),
    "no package": ("ours_absent.deep:Name", "there is no module 'ours_absent.deep'"),
    "close name": ("good.py:Ting", "good.py has no 'Ting'; did you mean 'Thing'. It defines: Th"),
    "other name": ("good.py:Xyz", "good.py has no 'Xyz'. It defines: Thing"),
    "empty": ("empty.py:Xyz", "empty.py has no 'Xyz'. It defines: nothing"),
    "raises": ("raises.py:x", r"importing it failed: ZeroDivisionError: .* \(raises.py, line 3\)"),
    "exits": ("exits.py:x", r"importing it failed: SystemExit: 3 \(exits.py, line 2\)"),
    "syntax": ("syntax.py:x", r"importing it failed: SyntaxError: .*\(syntax.py, line 2\)"),
    "imports": ("imports.py:x", "failed: ModuleNotFoundError: No module named 'ours_gone'"),
    "moved": ("moved.py:x", r"No module named 'attacks' .*is now 'from robustloss.attacks import'"),
    "module raises": ("ours_bad:x", r"importing it failed: RuntimeError: no \(ours_bad.py, line 1"),
    "package raises": ("ours_worse.sub:x", r"failed: OSError: gone \(__init__.py, line 1\)"),
}


@pytest.mark.parametrize(("name", "message"), BAD.values(), ids=BAD)
def test_what_does_not_load_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch
) -> None:
    write(tmp_path, "good.py", "from pathlib import Path\nclass Thing: pass\n")
    write(tmp_path, "empty.py", "")
    write(tmp_path, "raises.py", "def f():\n\n    return 1 / 0\nf()\n")
    write(tmp_path, "exits.py", "import sys\nsys.exit(3)\n")
    write(tmp_path, "syntax.py", "x = 1\nclass :\n")
    write(tmp_path, "imports.py", "import ours_gone\n")
    gone = "ModuleNotFoundError(\"No module named 'attacks'\", name='attacks')"
    write(tmp_path, "moved.py", f"raise {gone}\n")
    write(tmp_path, "ours_bad.py", "raise RuntimeError('no')\n")
    write(tmp_path, "ours_worse/__init__.py", "raise OSError('gone')\n")
    write(tmp_path, "ours_worse/sub.py", "x = 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=message):
        load_object(name)


def test_a_failed_import_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write(tmp_path, "late.py", "class Thing: pass\nraise ValueError('late')\n")
    for _ in range(2):
        with pytest.raises(PluginError, match="late"):
            load_object(f"{path}:Thing")


# --- digest ---------------------------------------------------------------------------------


def test_digest_is_of_the_text_not_of_the_place(tmp_path: Path) -> None:
    one = write(tmp_path / "a", "mine.py", "x = 1\n")
    two = write(tmp_path / "b", "mine.py", "x = 1\n")
    digest = source_digest(f"{one}:x")
    assert source_digest(f"{two}:x") == digest
    assert source_digest("mine.py:x", [tmp_path / "a"]) == digest
    assert len(digest) == 16
    assert int(digest, 16) > 0
    write(tmp_path / "a", "mine.py", "x = 2\n")
    assert source_digest(f"{one}:x") != digest


def test_digest_does_not_run_the_plugin(tmp_path: Path) -> None:
    path = write(tmp_path, "explosive.py", "raise SystemExit\n")
    assert source_digest(f"{path}:x")
    write(tmp_path, "ours_explosive.py", "raise SystemExit\n")
    assert source_digest("ours_explosive:x", [tmp_path])


NEIGHBOURS = {
    "import ours_helper\n": "ours_helper.py",
    "from ours_helper import thing\n": "ours_helper.py",
    "def late():\n    import ours_helper\n": "ours_helper.py",
    "import ours_pack.part\n": "ours_pack/part.py",
    "from ours_pack import part\n": "ours_pack/part.py",
    "import ours_pack.part \n": "ours_pack/__init__.py",
    "from ours_pack.part import thing\n": "ours_pack/sibling.py",
    "import ours_pack.part  # twice removed\n": "ours_helper.py",
}


@pytest.mark.parametrize(("text", "changed"), NEIGHBOURS.items())
def test_digest_follows_what_the_plugin_imports(text: str, changed: str, tmp_path: Path) -> None:
    path = write(tmp_path, "user.py", text)
    write(tmp_path, "ours_helper.py", "thing = 1\n")
    write(tmp_path, "ours_pack/__init__.py", "")
    write(tmp_path, "ours_pack/part.py", "from . import sibling\nfrom ours_helper import thing\n")
    write(tmp_path, "ours_pack/sibling.py", "from .part import thing\n")  # a circle
    write(tmp_path, "unrelated.py", "")
    before = source_digest(f"{path}:x")
    write(tmp_path, "unrelated.py", "y = 1\n")
    assert source_digest(f"{path}:x") == before
    write(tmp_path, changed, "thing = 2\n")
    assert source_digest(f"{path}:x") != before


def test_digest_of_a_module_follows_its_package(tmp_path: Path) -> None:
    write(tmp_path, "ours_top/__init__.py", "")
    write(tmp_path, "ours_top/losses/__init__.py", "")
    write(tmp_path, "ours_top/losses/mine.py", "from ..shared import thing\nimport torch\n")
    write(tmp_path, "ours_top/shared.py", "thing = 1\n")
    before = source_digest("ours_top.losses.mine:x", [tmp_path])
    write(tmp_path, "ours_top/shared.py", "thing = 2\n")
    assert source_digest("ours_top.losses.mine:x", [tmp_path]) != before


def test_digest_of_an_installed_module_stays_within_its_package() -> None:
    """Otherwise every key would hang on the whole of site-packages."""
    from robustloss.attacks.plugins import find_root, follow_imports

    path = Path(pytest.__file__)
    files = follow_imports(path, "pytest", find_root(path, "pytest"))
    assert {name.split(".")[0] for name in files} == {"pytest"}


@pytest.mark.parametrize("name", ["absent.py:x", "ours_absent:x", "nothing"])
def test_digest_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match=r"there is no|must have the form"):
        source_digest(name)
