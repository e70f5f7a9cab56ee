"""What is installed: every module under robustloss, and nothing that hides a user's own folders."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import robustloss
from robustloss.attacks.plugins import source_digest

ROOT = Path(robustloss.__file__).parent.parent
LINKS = ("attacks", "reports")
DATA = (
    ".toml",
    ".typed",
    ".css",
    ".js",
    ".j2",
    ".json",
    ".npz",
)  # of the files that are installed beside modules


def python(*words, folder, path=()):
    """Runs a new interpreter, which imports from the folder of its script and from `path`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def build(kind, checkout):
    """Builds a wheel or an sdist as pip does, without network; gives its path."""
    code = (
        f"import sys; from robustloss import build_backend as b; print(b.build_{kind}(sys.argv[1]))"
    )
    done = python("-c", code, checkout.parent, folder=checkout)
    assert done.returncode == 0, done.stderr
    return checkout.parent / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a build reads, so that it leaves nothing in the checkout itself."""
    folder = tmp_path_factory.mktemp("installation") / "checkout"
    folder.mkdir()
    for name in ("attacks", "reports", "robustloss"):
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout):
    return build("wheel", checkout)


@pytest.fixture(scope="module")
def unpacked(wheel):
    """The folder of an environment in which the wheel is installed, and nothing else of ours."""
    folder = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def packaged(names):
    """The files of the package, of the names in an archive or a folder."""
    return {str(n) for n in names if str(n).startswith("robustloss/") and not str(n).endswith("/")}


def test_the_wheel_holds_every_module_and_nothing_at_the_top_level(checkout, wheel):
    found = zipfile.ZipFile(wheel).namelist()
    assert {re.sub(r"-.*\.", ".", name.split("/")[0]) for name in found} == {
        "robustloss", "robustloss.dist-info",
    }  # fmt: skip
    expected = {
        str((Path(folder) / name).relative_to(checkout))
        for folder, _, names in os.walk(checkout / "robustloss", followlinks=True)
        for name in names
        if name.endswith((".py", *DATA)) or Path(folder).name == "guide"
    }
    assert {name for name in packaged(found) if not name.endswith(".pyc")} == expected
    for name in ("py.typed", "specs/quickstart.toml", "guide/safety.md", "attacks/noise.py",
                 "reports/page/build.py", "reports/templates/style.css",
                 "reports/templates/script.js",
                 "reports/published/liu2016-mnist.json"):  # fmt: skip
        assert f"robustloss/{name}" in expected


def test_a_wheel_from_the_sdist_has_the_same_files(checkout, wheel, tmp_path):
    with tarfile.open(build("sdist", checkout)) as archive:
        # Python 3.11 before .4 has no filter, and later ones warn without
        archive.extractall(
            tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )
    (source,) = tmp_path.iterdir()
    assert {path.name for path in source.iterdir() if path.is_dir()} == {
        "robustloss", "robustloss.egg-info",
    }  # fmt: skip
    same = packaged(zipfile.ZipFile(build("wheel", source)).namelist())
    assert same == packaged(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("name", LINKS)
def test_a_checkout_without_links_is_not_built(checkout, name, tmp_path):
    copy = tmp_path / "checkout"
    shutil.copytree(checkout, copy, symlinks=True)
    (copy / "robustloss" / name).unlink()
    (copy / "robustloss" / name).write_text(f"../{name}")  # as Git writes them on Windows
    done = python("-c", "import robustloss.build_backend", folder=copy)
    assert done.returncode == 1
    assert f"robustloss/{name} must be a link to ../{name}" in done.stderr
    assert "git clone -c core.symlinks=true URL" in done.stderr
    assert "Traceback" not in done.stderr


SCRIPT = """
import json, sys
from robustloss.attacks import build_attack
from robustloss.cli.commands import main
from robustloss.reports.page import build

if __name__ == "__main__":
    build.draw_all = lambda folder, contents, **how: []
    try:
        main(["run", "tiny.toml", "--out", "out", "--quiet", "--device", "cpu"])
    except SystemExit as end:
        status = end.code
    import robustloss
    ours = {name: sys.modules[f"robustloss.{name}"].__file__ for name in ("attacks", "reports")}
    loaded = [name for name in ("attacks", "reports") if name in sys.modules]
    print(json.dumps({"status": status, "ours": ours, "loaded": loaded}))
"""
TINY = """
name = "tiny"
data = { train_size = 40, validation_size = 20, test_size = 20 }
model = { backbone = "digits_cnn", feature_dim = 4 }
train = { epochs = 1, batch_size = 20, precision = "float32" }
losses = [{ name = "softmax" }]
attacks = [{ name = "fgsm", eps = [0.1] }]
"""


def test_a_run_beside_folders_named_attacks_and_reports_imports_neither(unpacked, tmp_path):
    for name in LINKS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise AssertionError('{name} is imported')")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "tiny.toml").write_text(TINY)
    done = python("script.py", folder=tmp_path, path=[unpacked])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "status": 0,
        "loaded": [],
        "ours": {name: str(unpacked / "robustloss" / name / "__init__.py") for name in LINKS},
    }
    assert (tmp_path / "out" / "report" / "index.html").is_file()


@pytest.mark.parametrize(
    "own", ["attacks.py", "attacks/__init__.py", "attacks/own.py", "reports.py"]
)
def test_a_users_module_of_that_name_enters_the_digest_of_a_plug_in(tmp_path, own):
    name = own.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / "plug.py").write_text(f"from {name} import strength\n")
    found = []
    for strength in (1, 2, 1):
        (tmp_path / own).write_text(f"strength = {strength}\n")
        found.append(source_digest("plug.py:Own", [tmp_path]))
    assert found[0] == found[2] != found[1]


def test_a_plug_in_with_the_old_import_is_told_the_new_one(unpacked, tmp_path):
    (tmp_path / "plug.py").write_text("from attacks import ImageNoise\n")
    code = "from robustloss.attacks.plugins import load_object; load_object('plug.py:Own')"
    done = python("-c", code, folder=tmp_path, path=[unpacked])
    assert "No module named 'attacks' (plug.py, line 1)" in done.stderr
    assert "'from attacks import' is now 'from robustloss.attacks import'." in done.stderr


def test_no_module_resolves_links_on_the_way_to_its_own_file():
    """Through a resolved link robustloss/attacks would be attacks, a package of another name."""
    for path in (ROOT / name for name in ("attacks", "reports", "robustloss")):
        for module in path.rglob("*.py"):
            for node in ast.walk(ast.parse(module.read_text("utf-8"))):
                follows = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                    ("resolve", "realpath", "readlink")
                )
                assert not (follows and "__file__" in ast.unparse(node)), f"{module}: {node.lineno}"
