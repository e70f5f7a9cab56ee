"""A run again from its report: the same spec and keys, what differs here, and pages of others."""

import html
import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

import robustloss
from robustloss.results.run import load_run
from robustloss.runs import rerun, runner
from robustloss.runs.merge import merge_runs
from robustloss.runs.provenance import digest_files
from robustloss.runs.rerun import plan_rerun
from robustloss.spec.load import load_spec, shipped_specs
from robustloss.spec.text import to_toml
from robustloss.storage import read_json, write_json
from tests.small_run import Counted, changed

MINE = """
from pathlib import Path
from robustloss.losses import LOSSES
Path("executed").touch()
class Mine(LOSSES["softmax"]):
    "softmax under another name"
"""
EVIL = 'x"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a spec, its own code, and the run of it with its report."""
    folder = tmp_path_factory.mktemp("rerun")
    (folder / "mine.py").write_text(MINE)
    spec = changed(
        seeds=[3, 1],
        losses=[{"name": "lgm"}, {"name": "mine.py:Mine", "label": EVIL, "params": {}}],
        attacks=[{"name": "fgsm", "eps": ["8/255", 0.1]}],
        train={"epochs": 1, "batch_size": 40, "precision": "float32", "max_grad_norm": False},
    )
    (folder / "spec.toml").write_text(to_toml(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runner.run("spec.toml", out="run", seeds=[1])
    return folder


@pytest.fixture
def page(root):
    return root / "run/report/index.html"


def numbers_of(spec):
    """All that a spec decides: its values, and how its files are called."""
    cells = [(cell.folder, cell.loss.file_label, cell.train, cell.model) for cell in spec.cells()]
    trials = [(trial.folder, trial.values) for trial in spec.trials()]
    return spec.plain(), cells, trials, [attack.slug for attack in spec.attacks]


@pytest.mark.parametrize("name", shipped_specs())
def test_a_spec_is_the_same_after_it_was_text_with_all_defaults(name):
    spec = load_spec(name)
    assert numbers_of(load_spec(tomllib.loads(to_toml(spec.as_written())))) == numbers_of(spec)


def test_a_page_gives_the_spec_back_and_nothing_is_computed_again(
    root, page, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    executed = root / "executed"
    executed.unlink()
    status, out, err = command("rerun", page, "--out", "again.toml")
    assert (status, err) == (0, "")
    assert not executed.exists()
    again = load_spec("again.toml")
    assert numbers_of(again) == numbers_of(load_spec(root / "spec.toml"))
    assert again.attacks[0].eps == (8 / 255, 0.1)
    assert re.search(r"^Same: robustloss \S+, torch \S+, .*instruction set \S+\.$", out, re.M)
    assert "Same: device cpu." in out
    assert "Same: data digits, checksum" in out
    assert 'Not here: losses[1].name = "mine.py:Mine", digest' in out
    (line,) = re.findall(r"^Run it: (.*)$", out, re.M)
    assert re.fullmatch(
        r"OMP_NUM_THREADS=\d+ robustloss run again\.toml --device cpu --seeds 1 --executor serial",
        line,
    )
    shutil.copy(root / "mine.py", tmp_path)
    shutil.copytree(root / "run", tmp_path / "run")
    counted = Counted(monkeypatch)
    runner.run("again.toml", out="run", seeds=[1])
    assert (counted.trained, counted.attacked) == (0, [])


def test_without_a_file_it_prints_a_spec_that_runs(root, page, command, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    for source in (page, root / "run"):
        status, out, _ = command("rerun", source)
        assert status == 0
        assert numbers_of(load_spec(tomllib.loads(out))) == numbers_of(load_spec("spec.toml"))
        assert '# Same: losses[1].name = "mine.py:Mine", digest' in out
        assert "# Run it: OMP_NUM_THREADS" in out
    (tmp_path / "mine.py").write_text(MINE + "# changed\n")
    monkeypatch.chdir(tmp_path)
    assert '# Differs: losses[1].name = "mine.py:Mine" had digest' in command("rerun", page)[1]


def test_what_is_another_here_is_said(page, monkeypatch):
    here = rerun.describe_machine()
    monkeypatch.setattr(
        rerun,
        "describe_machine",
        lambda device="cpu": here | {"torch": "0", "instruction_set": "S"},
    )
    lines = "\n".join(plan_rerun(page).lines)
    assert f"Differs: torch was {here['torch']}, is 0 here." in lines
    assert f"Differs: instruction set was {here['instruction_set']}, is S here." in lines


def kept(page):
    (found,) = re.findall(r'<meta name="robustloss-origin" content="([^"]*)">', page.read_text())
    return json.loads(html.unescape(found))


def forged(page, tmp_path, change):
    """A page that keeps other values."""
    values = kept(page)
    change(values)
    text = page.read_text()
    new = f'<meta name="robustloss-origin" content="{html.escape(json.dumps(values))}">'
    (tmp_path / "index.html").write_text(
        re.sub(r'<meta name="robustloss-origin"[^>]*>', lambda _: new, text)
    )
    return tmp_path / "index.html"


def test_a_page_keeps_little_and_no_folder(root, page):
    text = page.read_text()
    (meta,) = re.findall(r'<meta name="robustloss-origin"[^>]*>', text)
    assert len(meta) < 6000
    assert str(root) not in meta
    assert "<script" not in meta
    assert meta.isascii()


@pytest.mark.parametrize(("change", "told"), [
    (lambda o: o.update(device="NVIDIA H200"), "device was NVIDIA H200, and torch sees no GPU"),
    (lambda o: o.update(checksum="other"), "Differs: the data digits had checksum other, have"),
    (lambda o: o.update(checksum=None), "Not known: the checksum of the data"),
    (lambda o: o["versions"].pop("scipy"), "Not known: scipy; an older version wrote the run"),
    (lambda o: o["versions"].update(python="3\n[data]\nname = 'x'"), "python was 3 [data] name"),
    (lambda o: o["files"][0].update(name="os.path:join"), "Not compared: losses[1].name"),
    (lambda o: o["files"].append({"key": "losses[2].model", "name": "transformers:/etc",
                                  "digest": "0"}),
     'Not here: losses[2].model = "transformers:/etc", digest 0. Put it beside the spec.'),
    (lambda o: o.update(spec_text=o["spec_text"].replace('"digits"', '"mine.py:images"', 1)),
     "show SPEC --data --plugins` tells"),
    (lambda o: o.update(spec_text=o["spec_text"].replace(
        'name = "digits"', 'name = "image_folder"\nfolder = "/"', 1)), "show SPEC --data` tells"),
    (lambda o: o.update(spec_text=o["spec_text"].replace(
        'name = "digits"', 'name = "hugging_face"\nfolder = "/"', 1)), "show SPEC --data` tells"),
])  # fmt: skip
def test_values_of_a_page_are_told_and_never_more(page, tmp_path, change, told, command):
    status, out, _ = command("rerun", forged(page, tmp_path, change))
    assert status == 0
    assert told in out
    load_spec(tomllib.loads(out))


@pytest.mark.parametrize("change", [
    lambda o: o.update(seeds=["0; rm -rf /"]),
    lambda o: o.update(threads="1; rm"),
    lambda o: o.update(versions=[]),
    lambda o: o.update(files=[{"key": 1}]),
    lambda o: o.update(spec_text=7),
])  # fmt: skip
def test_values_of_another_type_are_damage(page, tmp_path, change, command):
    status, out, err = command("rerun", forged(page, tmp_path, change))
    assert (status, out) == (2, "")
    assert "what it keeps of its run is damaged" in err


@pytest.mark.parametrize(("text", "told"), [
    (lambda t: t[:600], "index.html is cut short"),
    (lambda t: t.replace('<meta name="robustloss-origin"', "<meta"), "older version, which kept"),
    (lambda t: t.replace("<title>", '<meta name="robustloss-origin" content=""><title>'),
     "several specs"),
    (lambda t: "Dear reader", "is no report of robustloss"),
    (lambda t: "", "is no report of robustloss"),
    (lambda t: re.sub('(robustloss-origin" content=")[^"]*', r"\g<1>" + "[" * 99999, t), "damaged"),
    (lambda t: re.sub('(robustloss-origin" content=")[^"]*', r"\g<1>" + "1" * 9999, t), "damaged"),
    (lambda t: re.sub('(robustloss-origin" content=")[^"]*', r"\g<1>" + "é", t), "damaged"),
    (lambda t: t.replace("batch_size", "batchsize"), "its spec cannot be read here"),
    (lambda t: t.replace("[data]", "[data"), "its spec cannot be read here"),
])  # fmt: skip
def test_a_file_that_gives_no_spec_is_refused(page, tmp_path, text, told, command):
    (tmp_path / "index.html").write_text(text(page.read_text()))
    status, out, err = command("rerun", tmp_path / "index.html")
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("\n") <= 4


def test_other_folders_and_files_are_refused(root, tmp_path, command, monkeypatch):
    monkeypatch.chdir(root)
    runner.run("spec.toml", out=tmp_path / "other", seeds=[2], report=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "spec.toml").write_text("old")
    robustloss.build_report(root / "run", everything=True)
    merged = merge_runs([root / "run", "other"], tmp_path / "merged").path
    robustloss.build_report(merged)
    for source, told in {
        "empty": "has no results.json (no run folder)",
        "nowhere": "nowhere cannot be read: No such file",
        root / "run/report/details.html": "has the details alone: name the index.html beside it",
        root / "spec.toml": "is no report of robustloss",
        merged: "puts runs together, which have specs of their own. Name one of them (run, other)",
        merged / "report/index.html": "puts runs together",
    }.items():
        status, out, err = command("rerun", source)
        assert (status, out) == (2, ""), source
        assert told in err
    status, _, err = command("rerun", root / "run", "--out", "spec.toml")
    assert status == 2
    assert "exists and is not replaced" in err
    assert (tmp_path / "spec.toml").read_text() == "old"
    status, _, err = command("rerun", root / "run", "--out", "spec.toml/again.toml")
    assert status == 2
    assert "--out (=spec.toml/again.toml) cannot be written: Not a directory. Name another" in err
    assert command("rerun", root / "run", "--out", "new/folder/again.toml")[0] == 0
    assert (tmp_path / "new" / "folder" / "again.toml").exists()


def test_an_older_run_gives_its_spec_and_what_defaults_were(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    folder = Path(shutil.copytree(root / "run", tmp_path / "run"))
    results = read_json(folder / "results.json")
    for key in ("spec_text", "files", "instruction_set", "scipy", "torchattacks"):
        del results["provenance"][key]
    results["provenance"]["spec"]["train"]["lr"] = 0.05
    write_json(folder / "results.json", results)
    found = plan_rerun(folder)
    assert numbers_of(found.spec) == numbers_of(load_spec(root / "spec.toml"))
    lines = "\n".join(found.lines)
    assert "Differs: train.lr was 0.05, is 0.1 here." in lines
    assert (
        "Not known: torchattacks, scipy, instruction set; an older version wrote the run" in lines
    )
    index = robustloss.build_report(folder)
    with pytest.raises(ValueError, match="kept no spec: name its run folder"):
        plan_rerun(index)


def test_the_folder_of_a_model_of_transformers_is_one_of_the_files(tmp_path):
    spec = load_spec(changed(losses=[{"model": "transformers:vit"}]), folder=tmp_path)

    def digest():
        (file,) = digest_files(spec)
        assert (file["key"], file["name"]) == ("losses[0].model", "transformers:vit")
        return file["digest"]

    (tmp_path / "vit").mkdir()
    assert digest() is None
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "vit" / name).write_text("{}")
    first = digest()
    (tmp_path / "vit/model.safetensors").write_text("other")
    assert first not in (None, digest())


def test_a_search_and_given_weights_come_back_and_models_in_memory_do_not(
    root, tmp_path, monkeypatch, no_report
):
    monkeypatch.chdir(tmp_path)
    weights = next((root / "run/cells/lgm/seed-1").glob("model-*"))
    shutil.copy(weights, tmp_path / "mine.safetensors")
    plain = load_spec(root / "spec.toml").plain()
    tables = {key: plain[key] for key in ("data", "model", "checks", "detection")}
    tables |= {"name": "x", "attacks": [{"name": "fgsm", "eps": [0.1]}]}
    given = {"name": "lgm", "weights": "mine.safetensors"}
    runner.run({**tables, "losses": [given]}, out="given")
    lines = "\n".join(plan_rerun("given").lines)
    assert 'Same: losses[0].weights = "mine.safetensors", digest' in lines
    Path("mine.safetensors").unlink()
    assert 'Not here: losses[0].weights = "mine.safe' in "\n".join(plan_rerun("given").lines)
    searched = {**tables, "train": {"epochs": 1},
                "losses": [{"name": "softmax", "search": {"lr": [0.1, 0.01]}}]}  # fmt: skip
    runner.run(searched, out="searched")
    assert numbers_of(plan_rerun("searched").spec) == numbers_of(load_spec(searched))
    model = robustloss.load_classifier(root / "run", loss="lgm", seed=1)
    images = load_run(root / "run").cells[0].record().images
    quiet = {"quick": True, "progress": robustloss.progress.Silent()}
    robustloss.evaluate(model, images, [0] * len(images), ["fgsm"], out="memory", **quiet)
    with pytest.raises(ValueError, match="its models were objects in Python"):
        plan_rerun("memory")
