"""A baseline file: what it gives back, how large it is, and what it refuses to read."""

import hashlib
import io
import json
import shutil
import zipfile

import numpy as np
import pytest

from robustloss.analysis.baseline.measures import METRICS, measure_cell
from robustloss.analysis.baseline.reduce import reduce_run
from robustloss.analysis.detection.scores import class_log_likelihood
from robustloss.metrics.bootstrap import bootstrap_auroc, draw_resamples, p_value
from robustloss.metrics.rates import auroc
from robustloss.results.compact import file as compact
from robustloss.results.compact.content import Baseline, CellOutcomes, PassOutcome
from robustloss.results.compact.file import load_baseline, save_baseline
from robustloss.results.run import load_run
from robustloss.storage import CorruptFile
from tests.reports.synthetic import write_run
from tests.reports.world import MOCKS, Layout, MockAttack

LAYOUT = Layout(
    mocks=MOCKS[1:],
    seeds=(0, 1),
    failed=(("GM", 1),),
    attacks=(
        MockAttack(eps=(0.0, 0.1, 0.2)),
        MockAttack("deepfool", "DeepFool", eps=(0.1,), strength=1.3),
        MockAttack("cw", "CW", "l2", (0.5, 1.0), 0.12),
    ),
    n=300,
    dim=20,
)


@pytest.fixture(scope="module")
def run(make_once):
    return load_run(make_once("compact", lambda path: write_run(path, LAYOUT)))


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    file = tmp_path_factory.mktemp("baseline") / "b.npz"
    save_baseline(file, reduce_run(run))
    return file


@pytest.fixture(scope="module")
def read(written):
    return load_baseline(written)


def test_it_gives_the_rows_of_the_run(run, read):
    assert [(c.label, c.seed) for c in read.cells] == [
        (c.label, c.seed) for c in sorted(run.cells, key=lambda c: (c.label, c.seed))
    ]
    np.testing.assert_array_equal(read.index, run.cells[0].record().index)
    seen = dict.fromkeys(METRICS, 0)
    for cell in read.cells:
        cap = {label: float(r[np.isfinite(r)].max()) for label, r in cell.radii.items()}
        passes = {(one.attack_label, one.eps) for one in cell.passes}
        for place, found in measure_cell(cell, passes, METRICS, cap).items():
            table, column, slack = {
                "error": ("rows", "error", 1e-12),
                "worst_case_error": ("worst_case", "error", 1e-12),
                "auroc": ("rows", "auroc_all", 1e-4),
                "undetected_success": ("rows", "undetected_success_at_5fpr", 1e-12),
                "median_radius": ("radii", "median_radius", 1e-3),
            }[place.metric]
            wanted = {"label": cell.label, "seed": cell.seed, "norm": place.norm}
            wanted |= {"attack_label": place.attack_label} if table != "worst_case" else {}
            wanted |= {"eps": place.eps} if place.eps is not None else {}
            for rows in (run.table(table), read.tables[table]):
                (row,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
                assert found.value == pytest.approx(row[column], abs=slack), place
            seen[place.metric] += 1
    # clean, 2 FGSM, 1 DeepFool, 2 CW of five cells; DeepFool's radii also judge FGSM's other eps
    assert seen == {
        "error": 30, "worst_case_error": 10, "auroc": 25, "undetected_success": 25,
        "median_radius": 10,
    }  # fmt: skip


def test_likelihoods_and_radii_come_back_to_three_digits(run, read):
    for cell in read.cells:
        (own,) = (c for c in run.cells if (c.label, c.seed) == (cell.label, cell.seed))
        for one in cell.passes:
            if one.scores is None:
                continue
            record = own.record(one.attack_label, one.eps)
            wanted = class_log_likelihood(record)
            slack = 2.0**-11 * np.abs(wanted - cell.shift) + 2.0**-24 * cell.scale
            assert (np.abs(cell.likelihood(one) - wanted) <= slack).all()
            np.testing.assert_array_equal(one.accepted, wanted >= cell.threshold)
            if one.attack_label in cell.radii:
                np.testing.assert_allclose(cell.radii[one.attack_label], record.radius, rtol=1e-3)


def test_a_byte_a_score_moves_an_auroc_by_less_than_a_thousandth(run, read, tmp_path):
    file = tmp_path / "small.npz"
    save_baseline(file, read, small=True)
    small = load_baseline(file)
    for whole, cell in zip(read.cells, small.cells, strict=True):
        assert len(np.unique([p.scores for p in cell.passes if p.scores is not None])) <= 256
        for one, other in zip(whole.passes[1:], cell.passes[1:], strict=True):
            np.testing.assert_array_equal(one.wrong, other.wrong)
            if one.scores is not None:
                np.testing.assert_array_equal(one.accepted, other.accepted)
                assert auroc(cell.clean.scores, other.scores) == pytest.approx(
                    auroc(whole.clean.scores, one.scores), abs=1e-3
                )
    save_baseline(tmp_path / "again.npz", small, small=True)
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()


def test_a_byte_a_score_keeps_infinite_ones_and_the_few_as_they_are():
    few = np.array([[-np.inf, 0.5, 0.5], [np.inf, -2.0, 0.5]], np.float16)
    places, levels = compact._group(few)
    np.testing.assert_array_equal(levels[places], few)


def test_paired_tests_are_the_same_to_two_digits(run, read):
    drawn = draw_resamples(LAYOUT.n)
    both = [
        sorted((c for c in side.cells if c.seed == 0), key=lambda c: c.label)[:2]
        for side in (run, read)
    ]
    differences = []
    for cells, exact in zip(both, (True, False), strict=True):
        resampled, values = [], []
        for cell in cells:
            if exact:
                sides = [
                    class_log_likelihood(cell.record(*p)) for p in (("none", 0.0), ("FGSM", 0.1))
                ]
            else:
                (one,) = (p for p in cell.passes if (p.attack_label, p.eps) == ("FGSM", 0.1))
                sides = [cell.clean.scores, one.scores]
            resampled.append(bootstrap_auroc(drawn, *sides))
            values.append(auroc(*sides))
        difference = resampled[0] - resampled[1]
        differences.append((values[0] - values[1], difference.std(), p_value(difference)))
    assert [c.label for c in both[0]] == [c.label for c in both[1]]
    assert differences[1] == pytest.approx(differences[0], rel=5e-3, abs=1e-4)


def test_equal_runs_give_equal_bytes_wherever_and_whenever_they_were_made(run, written, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "elsewhere")
    results = json.loads((copy / "results.json").read_text())
    results["provenance"] |= {"started": "2030-01-01T00:00:00+00:00", "seconds": 3.0}
    del results["digest"]
    (copy / "results.json").write_text(json.dumps(results))
    save_baseline(tmp_path / "again.npz", reduce_run(load_run(copy)))
    assert (tmp_path / "again.npz").read_bytes() == written.read_bytes()
    read = load_baseline(written)
    save_baseline(tmp_path / "read.npz", read)
    assert (tmp_path / "read.npz").read_bytes() == written.read_bytes()


def generate(n: int, labels: int, seeds: int, eps: int) -> Baseline:
    """Outcomes as incompressible as can be."""
    random = np.random.default_rng(0)

    def outcome(attack, number):
        wrong, accepted = random.random((2, n)) < 0.5
        scores = random.normal(size=n).astype(np.float16)
        norm = None if attack == "none" else "linf"
        return PassOutcome(attack, attack.upper(), norm, number / 10, wrong, accepted, scores)

    cells = [
        CellOutcomes(
            "lgm", f"loss {label}", seed, "0" * 64, -1.6, -92.0, 1.0,
            tuple(outcome("fgsm" if number else "none", number) for number in range(eps + 1)), {},
        )
        for label in range(labels) for seed in range(seeds)
    ]  # fmt: skip
    return Baseline(compact.Path("x"), "mnist", {}, np.arange(n), tuple(cells), {})


def test_ten_thousand_images_four_losses_and_four_eps_fit_into_two_megabytes(tmp_path):
    save_baseline(tmp_path / "b.npz", generate(10_000, 4, 1, 4))
    assert (tmp_path / "b.npz").stat().st_size < 0.5e6
    save_baseline(tmp_path / "five.npz", generate(10_000, 4, 4, 4))
    assert (tmp_path / "five.npz").stat().st_size < 2e6


def test_it_is_an_ordinary_npz_without_pickle(written, read):
    with np.load(written, allow_pickle=False) as arrays:
        bits = np.unpackbits(arrays["wrong_0"], axis=1, count=LAYOUT.n).astype(bool)
        np.testing.assert_array_equal(bits[0], read.cells[0].clean.wrong)
        assert arrays["scores_0"].dtype == np.float16


def test_damage_is_told(written, tmp_path):
    whole = written.read_bytes()
    file = tmp_path / "b.npz"
    for place in (0, 30, len(whole) // 2, len(whole) - 70, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptFile, match=r"b\.npz .*does not fit.*write it again"):
            load_baseline(file)
    for length in (1, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CorruptFile, match=r"b\.npz is truncated or altered"):
            load_baseline(file)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", r"b\.npz is empty \(0 bytes\)\. Take it from where it was kept"),
        (b"PK\5\6" + bytes(18), "It is an .npz that `robustloss baseline` did not write"),
        (b"label,error\nsoftmax,0.1\n", "b.npz is no baseline: it is a text file. Write one"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_another_file_is_told(tmp_path, content, why):
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(CorruptFile, match=why):
        load_baseline(tmp_path / "b.npz")


def test_no_file_a_folder_and_a_record_are_told(run, tmp_path):
    with pytest.raises(CorruptFile, match=r"gone\.npz cannot be read \(No such file"):
        load_baseline(tmp_path / "gone.npz")
    with pytest.raises(CorruptFile, match="cannot be read"):
        load_baseline(tmp_path)
    cell = run.cells[0]
    with pytest.raises(CorruptFile, match="is a file of robustloss, but no baseline"):
        load_baseline(cell.folder / cell.files["records"][0]["file"])


def forge(written, file, change):
    """The file with another content, and a digest that fits it."""
    members = {}
    with zipfile.ZipFile(written) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["meta.json"])
    change(header, members)
    members["meta.json"] = json.dumps(header).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"0" * 64
    body = buffer.getvalue()[:-64]
    file.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
    return file


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def replace_array(name, array):
    return lambda header, members: members.update({f"{name}.npy": npy(array)})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda header, members: header["cells"][0].pop("seed"), r"cells\.0\.seed: Field required"),
        (lambda header, members: header["cells"][0].update(scale=0), "greater than 0"),
        (lambda header, members: header.update(cells=[]), "cells"),
        (lambda header, members: header["cells"][0]["passes"].pop(), "wrong .*must be"),
        (lambda header, members: header["cells"][0]["passes"].pop(0), "must be"),
        (lambda header, members: header["tables"].update(rows=[{"error": "low"}]), "error"),
        (lambda header, members: header.update(provenance={"seeds": 3}), "provenance"),
        (lambda header, members: members.pop("wrong_1.npy"), "wrong_1"),
        (replace_array("index", np.arange(20)), "must be"),
        (replace_array("index", np.zeros(0, int)), "index"),
        (replace_array("scores_0", np.zeros((6, 3), np.float16)), "scores"),
        (replace_array("wrong_0", np.zeros((9, 38), np.int64)), "unsigned"),
        (replace_array("scores_0", np.full((6, 300), np.nan, np.float16)), "NaN"),
    ],
)  # fmt: skip
def test_a_forged_file_is_told(written, tmp_path, change, why):
    file = forge(written, tmp_path / "b.npz", change)
    with pytest.raises(CorruptFile, match=why):
        load_baseline(file)


def test_another_version_is_told(written, tmp_path):
    file = forge(written, tmp_path / "b.npz", lambda header, members: header.update(version=3))
    with pytest.raises(
        ValueError, match=r"version 3, and this robustloss reads versions 1 to 2\. Update"
    ):
        load_baseline(file)


def test_a_small_file_that_unpacks_to_much_is_refused(written, tmp_path, monkeypatch):
    bomb = forge(written, tmp_path / "b.npz", replace_array("scores_0", np.zeros(10**7)))
    assert bomb.stat().st_size < 200_000
    monkeypatch.setattr(compact, "_MOST_UNPACKED", 10**6)
    with pytest.raises(CorruptFile, match="more than 1000000 bytes"):
        load_baseline(bomb)
    load_baseline(written)


def test_an_altered_run_and_one_without_cells_make_no_baseline(run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "run")
    text = (copy / "results.json").read_text()
    results = json.loads(text)
    results["rows"][0]["error"] = 0.0
    (copy / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"results\.json was altered"):
        reduce_run(load_run(copy))
    (copy / "results.json").write_text(text)
    shutil.rmtree(copy / "cells")
    with pytest.raises(ValueError, match="has no finished cell"):
        reduce_run(load_run(copy))
