"""What README and guide say can be done: every block of code runs, every link and name exists."""

import json
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import typer

import robustloss
from robustloss.analysis.checks.catalogue import CHECKS
from robustloss.cli.commands import app
from robustloss.cli.guide import BIBTEX, list_topics
from robustloss.cli.listing import KINDS
from robustloss.data.load import load_dataset
from robustloss.runs.references.find import is_reference
from robustloss.spec import load as spec_files
from robustloss.spec.data import DataSpec
from robustloss.spec.gates.files import load_gate_file
from robustloss.spec.load import load_spec
from robustloss.spec.report import PublishedTable
from robustloss.spec.text import to_toml
from tests.small_run import changed

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "robustloss" / "guide").glob("*.md"))]
GALLERY = sorted((ROOT / "reports" / "gallery").glob("*.md"))
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
COMMANDS = typer.main.get_command(app)


def blocks(page):
    """The blocks of code of a page: language, text."""
    found = BLOCK.findall(page.read_text("utf-8"))
    return [(language, textwrap.dedent(text)) for _, language, text in found]


def prose(page):
    return BLOCK.sub("", page.read_text("utf-8"))


def of_language(*languages):
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (language, text) in enumerate(blocks(page))
        if language in languages
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_language_that_is_tested(page):
    of_ci = {"bash", "yaml"}  # which test_ci runs
    known = {"", "sh", "python", "toml", "json", "text", "bibtex", *of_ci}
    assert {language for language, _ in blocks(page)} <= known


@pytest.mark.parametrize("text", of_language("json"))
def test_a_block_of_json_is_a_published_table(text):
    assert PublishedTable.model_validate(json.loads(text)).rows


@pytest.mark.parametrize("text", of_language("", "sh"))
def test_a_shell_block_holds_commands_that_exist(text):
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r" > \S+", "", line), comments=True)
        if words:
            check_command(words)


def check_command(words):
    """Fails for a line of shell that the program, or a file that it names, does not have."""
    if "-m" in words and "robustloss" in words and words[0] in ("torchrun", "python"):
        words = [word for word in words[words.index("robustloss") :] if word != "--"]
    match words:
        case ["robustloss", name, *rest]:
            assert name in COMMANDS.commands, f"no command {name}"
            given = COMMANDS.commands[name].make_context(name, [*rest])  # a mistake raises
            for spec in filter(None, [given.params.get("spec"), given.params.get("against")]):
                known = str(spec) in spec_files.shipped_specs() or is_reference(spec)
                assert known or "/" in spec or spec.endswith(".toml"), spec
        case ["python", script, *_] if script.startswith("scripts/"):
            assert (ROOT / script).is_file()
        case [script] if script.startswith("scripts/"):
            assert (ROOT / script).is_file()
        case ["scripts/test.sh", *_]:
            assert (ROOT / "scripts/test.sh").is_file()
        case [".", ".venv/bin/activate"] | ["source", ".venv/bin/activate"]:
            assert ".venv" in (ROOT / "scripts/setup.sh").read_text()
        case ["pip", "install", *_] | ["git", "clone", *_] | ["cd", _] | ["ray", "start", *_]:
            pass
        case ["nvidia-cuda-mps-control", "-d"] | ["git", "add", *_]:
            pass
        case ["export", "OMP_NUM_THREADS=1"]:
            pass
        case _:
            pytest.fail(f"a command that no test knows: {shlex.join(words)}")


@pytest.mark.parametrize("text", of_language("toml"))
def test_a_toml_block_is_a_spec_or_tables_of_one(text):
    tables = tomllib.loads(text)
    if "baseline" in tables:  # of a file of gates
        load_gate_file(tables)
    else:
        load_spec(tables if "name" in tables else changed(**tables))


def test_a_fragment_that_is_no_spec_is_refused():
    with pytest.raises(ValueError, match="scors"):
        load_spec(changed(**tomllib.loads("[detection]\nscors = []")))


def test_the_bibtex_of_the_readme_is_that_of_cite():
    assert [text.strip() for language, text in blocks(README) if language == "bibtex"] == [BIBTEX]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as a reader has it: shipped specs, in small, and their finished runs."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "specs").mkdir()
    spec = changed(name="quickstart", checks={"images": 0}, detection={"noise": False})
    spec["train"] |= {"epochs": 8}
    (folder / "specs" / "quickstart.toml").write_text(to_toml(spec))
    return folder


class Recorder:
    """Stands in for a module or an object of others: takes every call, and keeps it."""

    def __init__(self, calls=None, name=""):
        self.calls, self._name = [] if calls is None else calls, name

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Recorder(self.calls, f"{self._name}.{name}".lstrip("."))

    def __call__(self, *arguments, **named):
        self.calls.append((self._name, arguments, named))
        return Recorder(self.calls, self._name)


@pytest.fixture
def boards(monkeypatch):
    """Stand-ins for what the guide names and robustloss does not need, by name."""
    found = {name: Recorder() for name in ("torch.utils.tensorboard", "mlflow", "wandb")}
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.fixture
def reader(workplace, boards, tmp_path, monkeypatch):
    """Runs blocks of Python as a reader pastes them, in a folder with a finished run."""
    monkeypatch.setattr(spec_files, "SHIPPED", workplace / "specs")
    if not (workplace / "runs").exists():
        monkeypatch.chdir(workplace)
        robustloss.run("quickstart", seeds=[0])
    shutil.copytree(workplace / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    digits = load_dataset(DataSpec(name="digits", test_size=20)).test
    return {
        "model": robustloss.load_classifier("runs/quickstart", loss="L-GM", seed=0),
        "images": digits.batch(slice(None)),
        "labels": digits.labels,
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs_as_pasted(page, reader, capsys):
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), reader)


def test_the_boards_of_the_guide_hear_a_run(reader, boards, tmp_path, no_report, capsys):
    code = [text for _, text in blocks(ROOT / "robustloss/guide/watching.md") if "class " in text]
    (tmp_path / "board.py").write_text("\n".join(code))
    names = [f"board.py:{name}" for name in ("TensorBoard", "MLflow", "WandB", "Board")]
    spec = changed(losses=[{"name": "lgm", "label": "L-GM (α 1)"}], seeds=[3])
    run = robustloss.load_run(robustloss.run(spec, progress=names).path)
    assert "failed" not in capsys.readouterr().err
    errors = {row["eps"]: row["error"] for row in run.rows if row["attack"] == "fgsm"}
    calls = boards["torch.utils.tensorboard"].calls
    scalars = [values for name, values, _ in calls if name == "SummaryWriter.add_scalar"]
    told = {step: value for tag, value, step in scalars if tag == "error/L-GM (α 1) seed 3, fgsm"}
    assert told == {round(255 * eps): 100 * error for eps, error in errors.items()}
    assert [step for tag, _, step in scalars if tag == "loss/L-GM (α 1) seed 3"] == [1, 2, 3]
    assert calls[-1][0] == "SummaryWriter.close"
    calls = boards["mlflow"].calls
    assert [name for name, _, _ in calls][:2] == ["start_run", "log_params"]
    metrics = dict(values for name, values, _ in calls if name == "log_metric")
    assert metrics["L-GM _α 1_ seed 3/fgsm/error at 0.1"] == errors[0.1]
    assert calls[-1][0] == "end_run"
    calls = boards["wandb"].calls
    logged = [values[0] for name, values, _ in calls if name == "init.log"]
    assert {"L-GM (α 1) seed 3/fgsm/error at 0.2": errors[0.2]} in logged
    assert [each["epoch"] for each in logged if "epoch" in each] == [1, 2, 3]
    assert calls[-1][0] == "init.finish"


@pytest.mark.parametrize("page", [*PAGES, *GALLERY], ids=lambda page: page.stem)
def test_what_a_page_names_exists(page):
    text = prose(page)
    for name in re.findall(r"`robustloss ([a-z][a-z-]*)[^`]*`", text):
        assert name in COMMANDS.commands, name
    for topic in re.findall(r"robustloss\sguide\s([a-z]+)", text):
        assert topic in list_topics(), topic
    for path in re.findall(r"`((?:robustloss|attacks|reports|scripts|tests)/[\w./-]+)`", text):
        path = path.replace("NAME.py", "__init__.py")
        assert (ROOT / path).exists() or (ROOT / "robustloss" / path).exists(), path
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        check_link(page, target)


def check_link(page, target):
    """Fails for a link to a file or a heading that is not there."""
    if target.startswith("https://"):
        return
    path, _, anchor = target.partition("#")
    file = page if not path else page.parent / path
    assert file.exists(), target
    if anchor:
        headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", file.read_text("utf-8")), re.MULTILINE)
        assert anchor in {anchor_of(heading) for heading in headings}, target


def anchor_of(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_a_link_to_nothing_is_noticed():
    check_link(README, "robustloss/guide/losses.md#your-own-loss")
    for broken in ("robustloss/guide/los.md", "robustloss/guide/losses.md#your-loss", "#nowhere"):
        with pytest.raises(AssertionError):
            check_link(README, broken)


def test_every_check_is_explained_under_mistakes():
    text = " ".join((ROOT / "robustloss/guide/mistakes.md").read_text("utf-8").split())
    assert [check for check in CHECKS if f"*{check.replace('_', ' ')}*" not in text] == []


def test_every_key_of_a_spec_stands_on_one_page():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    tables = {key.key.rpartition(".")[0] or "-" for key in spec_files.key_table()}
    found = re.findall(r"<!-- generated: keys (\S+) -->", text)
    assert sorted(found) == sorted(tables)


def test_every_shipped_spec_and_data_set_and_backbone_is_listed_once():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    for kind in (*KINDS, "tables"):
        assert text.count(f"<!-- generated: {kind} -->") == 1, kind


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_a_page_of_the_guide_fits_a_terminal(page):
    long = [line for line in page.read_text("utf-8").splitlines() if len(line) > 100]
    assert long == []


def test_the_readme_is_read_in_two_minutes():
    lines = README.read_text("utf-8").splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > 110] == []
    assert len(" ".join(lines).split()) <= 1500


@pytest.mark.parametrize("page", GALLERY, ids=lambda page: page.stem)
def test_a_page_of_results_says_what_it_rests_on_and_stands_in_the_index(page):
    if page.stem == "README":
        assert {path.name for path in GALLERY} - {"README.md"} == set(
            re.findall(r"\]\((\w[\w-]*\.md)\)", page.read_text("utf-8"))
        )
        return
    text = page.read_text("utf-8")
    for told in (
        "**Question.**",
        "**Answer.**",
        "- **Command**",
        "- **Machine**",
        "- **n**",
        "- **Intervals**",
    ):
        assert told in text, told
