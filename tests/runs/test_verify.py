"""`robustloss verify RUN`: whatever was changed in a run is found, also under forged digests."""

import json
import os
import shutil

import numpy as np
import pytest

import robustloss
from robustloss.array_files import write_arrays
from robustloss.image_files import open_images, writing_images
from robustloss.models.weight_files import load_tensors, save_tensors
from robustloss.results.finished_cell import digest_files
from robustloss.results.records import load_record_and_meta, save_record
from robustloss.runs import runner
from robustloss.runs.merge import merge_runs
from robustloss.runs.proof.findings import Finding, Verification
from robustloss.storage import digest_content, digest_file, read_json, write_json
from tests.small_run import Counted, changed

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")

SPEC = changed(
    seeds=[0, 1],
    losses=[{"name": "softmax"}, {"name": "lgm"}],
    attacks=[
        {"name": "fgsm", "eps": [0, 0.1, 0.2], "transfer": True},
        {"name": "pgd", "params": {"steps": 2}, "eps": [0.1]},
        {"name": "deepfool", "params": {"steps": 3}, "eps": [1.0]},
    ],
    checks={"images": 4},
    detection={"fit_size": 60, "scores": ["class_log_likelihood", "energy"]},
    outside=[{"name": "uniform_noise", "images": 20}],
)

ONE_SEED = SPEC | {"seeds": [0], "records": {"images": "all"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from robustloss import reports

    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: path)
        for images in ("all", "worst"):
            spec = SPEC | {"records": {"images": images}}
            assert runner.run(spec, out=folder / images).exit_code == 0
        assert runner.run(ONE_SEED, out=folder / "one").exit_code == 0
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A copy to spoil of a run that keeps all images, of one seed."""
    shutil.copytree(made / "one", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def two_seeds(made, tmp_path):
    """The same of two seeds."""
    shutil.copytree(made / "all", tmp_path / "two-seeds")
    return tmp_path / "two-seeds"


def cell_of(run, loss="lgm", seed=0):
    return run / "cells" / loss / f"seed-{seed}"


def one(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def reseal(run):
    """Makes every digest anew, as somebody would who forges numbers with care."""
    seals = []
    for path in sorted(run.glob("cells/*/*/cell.json")):
        content = read_json(path)
        del content["sha256"]
        content["digests"] = digest_files(path.parent, content["files"])
        content["weights"] = load_tensors(path.parent / content["files"]["model"])[1]["tensors"]
        write_json(path, content, checked=True)
        sha256 = read_json(path)["sha256"]
        seals.append({"label": content["label"], "seed": content["seed"], "sha256": sha256})
    results = read_json(run / "results.json")
    results["provenance"]["cells"] = seals
    del results["digest"]
    results["digest"] = digest_content(results)
    write_json(run / "results.json", results, sort_keys=False)


def failures(run, **how):
    found = robustloss.verify(run, **how)
    assert bool(found) == (not found.failures)
    return "\n".join(map(str, found.failures))


@pytest.mark.parametrize("images", ["all", "worst"])
def test_a_run_as_it_was_written_passes(made, images):
    told = []
    found = robustloss.verify(made / images, tell=told.append)
    assert found, str(found)
    assert tuple(told) == found.findings
    assert {each.state for each in found.findings} == {"pass"}
    text = "\n".join(map(str, found.findings))
    assert "L-GM seed 1, FGSM at eps 0.1: " in text
    assert "results.json, numbers: they are what its 4 cells give" in text
    assert ("worst case at eps 0.1 (L∞): 80 images: in box and ball" in text) == (images == "worst")
    assert str(found).endswith(f"{len(told)} passed, 0 failed.")


def test_what_passes_is_a_line_for_each_cell_and_what_fails_is_told_in_full(made, two_seeds):
    found = robustloss.verify(made / "all")
    lines = str(found).splitlines()
    assert len(lines) == 4 + 4 < len(found.findings)
    assert (
        "pass  L-GM seed 1: files, numbers; clean images; FGSM at eps 0.1, 0.2; "
        "PGD at eps 0.1; DeepFool at eps 1 (80 images)"
    ) in lines
    for seed in (0, 1):
        one(cell_of(two_seeds, seed=seed), "pgd-0.1-*.npz").unlink()
    found = robustloss.verify(two_seeds, files_only=True)
    lines = str(found).splitlines()
    assert lines[: len(found.failures)] == list(map(str, found.failures))
    assert sum(line.startswith("FAIL  L-GM seed") for line in lines) >= 2


def test_a_state_that_cells_share_is_one_line(made):
    old = [
        Finding(f"L-GM seed {seed}, files", "open", "no digests", f"L-GM seed {seed}")
        for seed in range(12)
    ]
    assert Verification(tuple(old)).condense() == [
        "open  files of 12 cells (L-GM seed 0; L-GM seed 1; and 10 more): no digests"
    ]


def rewrite_images(path, change):
    images = np.array(open_images(path).read(0, 80))
    change(images)
    with writing_images(path, images.shape) as out:
        out.write(images)


def test_a_changed_pixel(run):
    path = one(cell_of(run), "images-pgd-0.1-*.npy")

    def change(images):
        images[7, 0, 3, 4] += 0.01 if images[7, 0, 3, 4] < 0.5 else -0.01

    rewrite_images(path, change)
    name = f"L-GM seed 0, files: {path.name} is another file than cell.json states"
    assert name in failures(run, files_only=True)
    reseal(run)
    assert not failures(run, files_only=True)
    assert "l2 distance not that of the record: 1 of 80 images" in failures(run)


def test_a_changed_weight(run):
    path = one(cell_of(run), "model-*")
    data = bytearray(path.read_bytes())
    data[-3] ^= 64
    path.write_bytes(data)
    assert "its tensors were altered" in failures(run, files_only=True)


def test_a_changed_weight_under_new_digests(run):
    path = one(cell_of(run), "model-*")
    tensors, meta = load_tensors(path)
    name = next(name for name, value in tensors.items() if value.ndim == 4)
    tensors[name][0, 0, 0, 0] += 0.5
    del meta["tensors"]
    save_tensors(path, tensors, meta)
    assert "holds other weights than cell.json states" in failures(run, files_only=True)
    reseal(run)
    assert not failures(run, files_only=True)
    found = failures(run)
    assert "L-GM seed 0, clean images: logits not those of the record: 80 of 80 images" in found
    assert "L-GM seed 1" not in found


def test_an_image_outside_the_ball(run):
    def change(images):
        images[3] = 1 - images[3].round()

    rewrite_images(one(cell_of(run), "images-fgsm-0.1-*.npy"), change)
    reseal(run)
    assert "FGSM at eps 0.1: outside the ball of eps 0.1: 1 of 80 images;" in failures(run)


def test_an_image_outside_the_box(run):
    def change(images):
        images[3, 0, 0, 0] = 1.01

    rewrite_images(one(cell_of(run), "images-fgsm-0.1-*.npy"), change)
    reseal(run)
    assert "FGSM at eps 0.1: outside the box [0, 1]: 1 of 80 images" in failures(run)


def change_record(path, **change):
    from dataclasses import replace

    record, meta = load_record_and_meta(path)
    save_record(path, replace(record, **{name: f(record) for name, f in change.items()}), meta)


def test_swapped_labels(run):
    def swap(record):
        labels = record.labels.copy()
        other = int(np.flatnonzero(labels != labels[0])[0])
        labels[[0, other]] = labels[[other, 0]]
        return labels

    for path in cell_of(run).glob("*.npz"):
        if path.name.startswith(("none-", "fgsm-", "pgd-", "deepfool-", "noise-")):
            change_record(path, labels=swap)
    reseal(run)
    assert "L-GM seed 0, clean images: labels not those of the data: 2 of 80 images" in failures(
        run
    )


@pytest.mark.parametrize(
    ("table", "column"),
    [("rows", "error"), ("summary", "mean"), ("comparisons", "difference"), ("transfer", "error")],
)
def test_a_changed_digit_in_results(run, table, column):
    text = (run / "results.json").read_text()
    results = json.loads(text)
    row = next(row for row in results[table] if row[column])
    row[column] += 0.01
    write_json(run / "results.json", results, sort_keys=False)
    assert "results.json: its digest does not fit" in failures(run, files_only=True)
    reseal(run)
    found = failures(run, files_only=True)
    assert f"results.json is not what its cells give: {table}[" in found
    assert f".{column} is " in found


def test_a_changed_number_in_a_cell_and_in_results(run):
    path = cell_of(run) / "cell.json"
    content, results = read_json(path), read_json(run / "results.json")
    for rows in (content["rows"], results["rows"]):
        row = next(
            r for r in rows
            if (r["label"], r["seed"], r["attack"], r["eps"]) == ("L-GM", 0, "pgd", 0.1)
        )  # fmt: skip
        row["error"] -= 0.1
    del content["sha256"]
    write_json(path, content, checked=True)
    write_json(run / "results.json", results, sort_keys=False)
    reseal(run)
    found = failures(run)
    assert "L-GM seed 0, numbers: cell.json is not what its records give: rows[" in found
    assert "PGD at eps 0.1: these images give error" in found


def test_a_replaced_record(two_seeds):
    other, own = (one(cell_of(two_seeds, seed=seed), "pgd-0.1-*.npz") for seed in (1, 0))
    shutil.copy(other, own)
    found = failures(two_seeds, files_only=True)
    assert f"L-GM seed 0, files: {own.name} is another file than cell.json states (sha256)" in found
    reseal(two_seeds)
    assert "L-GM seed 0, numbers: cell.json is not what its records give" in failures(
        two_seeds, files_only=True
    )


def test_a_replaced_score(run):
    path = one(cell_of(run), "scores-*.npz")
    from robustloss.array_files import read_arrays

    arrays, meta = read_arrays(path)
    arrays = {name: a[:, ::-1] if name.startswith("scores_1") else a for name, a in arrays.items()}
    write_arrays(path, arrays, meta)
    reseal(run)
    assert "L-GM seed 0, numbers" in failures(run, files_only=True)


def test_a_link_is_not_followed(run):
    path = one(cell_of(run), "images-pgd-0.1-*.npy")
    shutil.move(path, run.parent / "away.npy")
    path.symlink_to(run.parent / "away.npy")
    assert "is a link, and nothing is followed out of a run folder" in failures(run)


@pytest.mark.parametrize("pattern", ["images-pgd-*", "scores-*", "pgd-*.npz"])
def test_a_file_without_end_is_not_read(run, pattern, monkeypatch):
    path = one(cell_of(run), pattern)
    os.truncate(path, 2**42)
    assert f"{path.name} cannot be read (has more than" in failures(run, files_only=True)
    counted = Counted(monkeypatch)
    runner.run(ONE_SEED, out=run)
    assert len(counted.attacked) == (pattern != "scores-*")
    assert path.stat().st_size < 2**20


def test_a_removed_file(run):
    path = one(cell_of(run), "pgd-0.1-*.npz")
    path.unlink()
    assert f"L-GM seed 0, files: {path.name} is missing" in failures(run)


def test_a_removed_cell(two_seeds):
    shutil.rmtree(cell_of(two_seeds, seed=1))
    assert "cells: L-GM, seed 1: its cell.json is missing." in failures(two_seeds)
    results = read_json(two_seeds / "results.json")
    for name, rows in results.items():
        if isinstance(rows, list):
            results[name] = [
                row for row in rows if (row.get("label"), row.get("seed")) != ("L-GM", 1)
            ]
    del results["digest"]
    results["digest"] = digest_content(results)
    write_json(two_seeds / "results.json", results, sort_keys=False)
    assert "L-GM" in failures(two_seeds)


def test_a_replaced_cell(run):
    path = cell_of(run) / "cell.json"
    content = read_json(path)
    del content["sha256"]
    content["note"] = "another"
    write_json(path, content, checked=True)
    found = failures(run, files_only=True)
    assert "L-GM seed 0, cell.json: another file than results.json was made from" in found


def test_a_replaced_transfer(run):
    first, second = sorted(run.glob("transfer/seed-0/lgm-*"))
    shutil.copy(first, second)
    found = failures(run, files_only=True)
    assert (
        f"transfer: transfer/seed-0/{second.name} is another file than results.json states" in found
    )


def test_damaged_results(run):
    text = (run / "results.json").read_text()
    (run / "results.json").write_text(text[:-40])
    assert "results.json: results.json is not valid JSON" in failures(run)


def test_other_data(run, monkeypatch):
    results = read_json(run / "results.json")
    results["provenance"]["spec"]["data"]["test_size"] = 79
    write_json(run / "results.json", results, sort_keys=False)
    reseal(run)
    assert "data: the data here have checksum " in failures(run)


def test_what_an_older_version_did_not_store_cannot_be_told_and_is_no_failure(two_seeds):
    for path in two_seeds.glob("cells/*/*/cell.json"):
        content = read_json(path)
        del content["sha256"], content["digests"]
        write_json(path, content, checked=True)
    results = read_json(two_seeds / "results.json")
    del results["digest"], results["provenance"]["cells"], results["provenance"]["transfers"]
    results["summary"] = [row for row in results["summary"] if row["metric"] != "auroc_all"]
    for row in results["rows"]:
        del row["auroc_noise"]
    write_json(two_seeds / "results.json", results, sort_keys=False)
    found = robustloss.verify(two_seeds)
    assert found, str(found)
    text = str(found)
    assert "open  results.json: an older version wrote it without a digest" in text
    assert (
        "open  files of 4 cells (L-GM seed 0; L-GM seed 1; and 2 more): an older version stored no"
    ) in text
    assert text.endswith("7 cannot be told.")
    path = one(cell_of(two_seeds), "pgd-0.1-*.npz")
    path.write_bytes(path.read_bytes()[:-100])  # a file has a digest of its own
    assert f"{path.name} is truncated or altered" in failures(two_seeds)


def test_without_the_data_files_and_numbers_are_checked(run, monkeypatch):
    from robustloss.data.files import DataError
    from robustloss.runs.proof import choose

    def absent(*words, **more):
        raise DataError("no files")

    monkeypatch.setattr(choose, "load_dataset", absent)
    found = robustloss.verify(run)
    assert found
    (told,) = [each for each in found.findings if each.state == "open"]
    assert "the data are not here (no files). Name their folder with --data" in str(told)


def test_a_merged_run_passes_and_its_forgery_does_not(made, tmp_path):
    merged = merge_runs([made / "all", made / "worst"], tmp_path / "both").path
    assert robustloss.verify(merged), failures(merged)
    own = one(cell_of(merged, "l-gm"), "pgd-0.1-*.npz")
    data = own.read_bytes()
    own.unlink()  # it is a link to the file of the run
    own.write_bytes(data[:-1] + b"0")
    assert own.name in failures(merged, files_only=True)


def test_the_command(made, two_seeds, command, tmp_path):
    status, out, err = command("verify", made / "all", "--files")
    assert (status, err) == (0, "")
    assert out.endswith("10 passed, 0 failed.\n")
    one(cell_of(two_seeds), "pgd-0.1-*.npz").unlink()
    status, out, _ = command("verify", two_seeds, "--files")
    assert status == 1
    assert out.startswith("FAIL  L-GM seed 0, files: pgd-0.1-")
    assert "\npass  L-GM seed 1: files, numbers\n" in out
    for words, told in [
        ((tmp_path / "none",), "must be a folder that `robustloss run` wrote"),
        ((two_seeds, "--loss", "lgm"), "loss (=lgm) goes with images only"),
        (
            (two_seeds, "x.npz", "--files"),
            "--files (files_only) loads no model. Leave it out, or IMAGES",
        ),
        ((two_seeds, "--device", "gpu"), "device (='gpu') must be one of"),
    ]:
        status, out, err = command("verify", *words)
        assert (status, out) == (2, "")
        assert told in err
        assert "Traceback" not in err


def test_digests_are_those_of_sha256sum(made):
    folder = cell_of(made / "all")
    content = read_json(folder / "cell.json")
    names = {path.name for path in folder.glob("*.np?")}
    assert content["digests"].keys() == names
    assert all(digest_file(folder / name) == content["digests"][name] for name in names)


def test_a_given_model_that_keeps_the_worst(made, tmp_path):
    weights = one(cell_of(made / "all"), "model-*")
    given = {"name": "lgm", "label": "Given", "weights": str(weights)}
    spec = SPEC | {"seeds": [3], "losses": [given], "records": {"images": "worst"}}
    runner.run(spec, out=tmp_path / "run")
    found = robustloss.verify(tmp_path / "run")
    assert found, str(found)
    assert any("worst case at eps 0.1 (L∞)" in each.what for each in found.findings)
    out = robustloss.export(tmp_path / "run", "Worst-Case", eps=0.1, out=tmp_path / "a.npz")
    assert robustloss.verify(tmp_path / "run", out)
