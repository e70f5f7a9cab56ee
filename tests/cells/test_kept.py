"""Attacked images that a run keeps: which, where, and that they come without another training."""

import shutil

import numpy as np
import pytest

from robustloss.analysis.worst_images import CLEAN, choose_worst, find_sources, gather_worst
from robustloss.evaluation import passes
from robustloss.image_files import check_images, open_images, writing_images
from robustloss.results import records as stored
from robustloss.results.records import Record
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.spec import resources
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.storage import CorruptFile
from tests.crashes import count_changes, killed_before
from tests.small_run import Counted, changed, compute_jobs_here, numbers

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")

ATTACKS = [
    {"name": "fgsm", "eps": [0, 0.1, 0.2], "batch_size": 32},
    {"name": "pgd", "params": {"steps": 2}, "eps": [0.1], "batch_size": 32},
    {"name": "cw", "params": {"steps": 5}, "eps": [2.0], "batch_size": 32},
]
FEW = changed(
    seeds=[0], losses=[{"name": "lgm"}], attacks=ATTACKS, checks={"images": 0},
    detection={"fit_size": 60, "noise": False, "scores": ["class_log_likelihood"]},
)  # fmt: skip


def keeping(images, **keys):
    return FEW | {"records": {"images": images}} | keys


def cell_files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("cells/*/*/*.np?")}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """One run that keeps nothing and, by what they keep, its continuations."""
    from robustloss import reports

    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: path)
        counts = {}
        runner.run(FEW, out=folder / "none")
        for images in ("all", "worst", 70):
            shutil.copytree(folder / "none", folder / str(images))
            with pytest.MonkeyPatch.context() as counting:
                counted = Counted(counting)
                assert runner.run(keeping(images), out=folder / str(images)).exit_code == 0
                counts[images] = counted.trained, counted.attacked
    return folder, counts


def read_cell(folder):
    (cell,) = load_run(folder).cells
    return cell


def test_kept_images_come_without_another_training_and_change_no_other_file(kept):
    folder, counts = kept
    plain = cell_files(folder / "none")
    for images, (trained, attacked) in counts.items():
        assert trained == 0
        assert sorted(attacked) == [(0.1,), (0.1, 0.2), (2.0,)]  # eps 0 is not asked for again
        found = cell_files(folder / str(images))
        assert {name: found[name] for name in plain} == plain
        more = [name for name in found if name not in plain]
        assert len(more) == {"all": 4, "worst": 3, 70: 4}[images]
        assert all(name.startswith("images-") for name in more)


@pytest.mark.parametrize(("images", "n"), [("all", 80), (70, 70)])
def test_kept_images_are_those_of_the_record(kept, images, n):
    folder, _ = kept
    cell = read_cell(folder / str(images))
    assert cell.images(cell.files["records"][0]) is None  # the clean ones are the data's
    for entry in cell.files["records"][1:]:
        file = cell.images(entry)
        if entry["eps"] == 0:
            assert file is None
            continue
        assert file.shape == (n, 1, 8, 8)
        record = cell.record(entry["attack_label"], entry["eps"])
        assert np.array_equal(file.read(0, 64), record.images)
        assert np.array_equal(np.load(file.path)[:64], record.images)
        assert cell.digests[file.path.name]


def test_nothing_is_kept_unless_it_is_asked_for(kept):
    folder, _ = kept
    assert not list((folder / "none").rglob("images-*"))
    assert all("images" not in entry for entry in read_cell(folder / "none").files["records"])


def test_the_worst_images_fool_as_often_as_the_worst_case_says(kept):
    folder, _ = kept
    run, cell = load_run(folder / "worst"), read_cell(folder / "worst")
    import robustloss

    model = robustloss.load_classifier(folder / "worst", loss="lgm", seed=0)
    labels = cell.record().labels
    assert [(e["norm"], e["eps"]) for e in cell.files["worst"]] == [
        ("l2", 2.0), ("linf", 0.1), ("linf", 0.2),
    ]  # fmt: skip
    for entry in cell.files["worst"]:
        images = np.load(cell.folder / entry["file"])
        wrong = model(passes.torch.from_numpy(images)).argmax(1).numpy() != labels
        (row,) = [
            r for r in run.worst_case if (r["norm"], r["eps"]) == (entry["norm"], entry["eps"])
        ]
        assert wrong.mean() == row["error"]


def test_a_run_that_kept_from_the_start_has_the_same_files(kept, tmp_path):
    folder, _ = kept
    runner.run(keeping("worst"), out=tmp_path)
    assert cell_files(tmp_path) == cell_files(folder / "worst")
    assert numbers(tmp_path) == numbers(folder / "worst")


def test_only_the_attack_whose_images_are_missing_or_damaged_is_computed(
    kept, tmp_path, monkeypatch
):
    folder, _ = kept
    shutil.copytree(folder / "all", tmp_path / "run")
    before = cell_files(tmp_path / "run")
    (pgd,) = tmp_path.rglob("images-pgd-*")
    pgd.unlink()
    (fgsm,) = tmp_path.rglob("images-fgsm-0.2-*")
    data = bytearray(fgsm.read_bytes())
    data[500] ^= 1
    fgsm.write_bytes(data)
    counted = Counted(monkeypatch)
    runner.run(keeping("all"), out=tmp_path / "run")
    assert (counted.trained, sorted(counted.attacked)) == (0, [(0.1,), (0.2,)])
    assert cell_files(tmp_path / "run") == before
    runner.run(keeping(70), out=tmp_path / "run")  # a file with more images serves
    assert len(counted.attacked) == 2


@pytest.mark.parametrize("images", ["all", "worst", 70])
def test_parts_give_the_images_of_the_whole(kept, tmp_path, monkeypatch, images):
    folder, _ = kept
    given = compute_jobs_here(monkeypatch)
    shutil.copytree(folder / "none", tmp_path / "run")
    split = keeping(images, resources={"split": 32})
    runner.run(split, out=tmp_path / "run", executor="processes:2")
    assert len(given[1]) == 3 * 3  # three parts of each attack
    assert cell_files(tmp_path / "run") == cell_files(folder / str(images))
    assert not list(tmp_path.rglob("*.part"))


def test_a_kill_at_any_change_of_a_file_loses_nothing(kept, tmp_path):
    folder, _ = kept
    spec = keeping("worst")

    def start():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(folder / "none", tmp_path / "run")

    start()
    changes = count_changes(lambda: runner.run(spec, out=tmp_path / "run"), tmp_path / "run")
    moments = [n for n, each in enumerate(changes) if "images-" in each]
    assert len(moments) > 12
    for number in moments[::3]:
        start()
        with killed_before(number, tmp_path / "run"):
            runner.run(spec, out=tmp_path / "run")
        runner.run(spec, out=tmp_path / "run")
        assert cell_files(tmp_path / "run") == cell_files(folder / "worst"), changes[number]
        assert not list(tmp_path.rglob(".*.tmp-*"))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (10, r'records.images \(=10\) must be "all", "worst" or a whole number of images, 64 or'),
        ("al", r'records.images \(="al"\) must be "all", "worst" or a whole number'),
        ("100", "Write 100, without quotes"),
        (True, "must be"),
        (100.0, "must be"),
        (None, "must be"),
    ],
)
def test_another_number_of_images_is_refused(value, told):
    with pytest.raises(SpecError, match=told):
        load_spec(keeping(value))


def test_a_word_may_be_in_any_case():
    assert load_spec(keeping("ALL")).records.images == "all"
    assert load_spec(FEW).records.images == 64
    assert resources.MOST_PICTURES == stored.MAX_IMAGES == passes.PICTURES


def record(logits, radius=None):
    logits = np.array(logits, np.float32)
    n = len(logits)
    zeros = np.zeros(n, np.float32)
    return Record(
        index=np.arange(n), labels=np.zeros(n, np.int64), logits=logits,
        class_log_likelihood=logits, features=None, linf=zeros, l2=zeros, zero_gradient=None,
        radius=radius, images=np.zeros((0, 1, 1, 1), np.float32),
    )  # fmt: skip


def test_the_worst_is_the_wrong_one_with_the_smallest_margin_and_a_radius_must_reach():
    #              right      right       wrong       right       wrong
    clean = record([[2, 1], [2, 1], [1, 2], [2, 1], [1, 2]])
    one = record([[3, 1], [1, 2], [1, 3], [1, 1], [2, 1]])  # a tie is the first class: right
    two = record([[2, 1], [1, 3], [1, 2], [1, 1], [2, 1]])
    far = record(
        [[0, 9], [0, 9], [0, 9], [0, 9], [0, 9]],
        radius=np.array([2, 0.5, 2, 2, 2], np.float32),
    )
    sources = [({"eps": 1.0}, one), ({"eps": 1.0}, two), ({"eps": 3.0}, far)]
    assert choose_worst(clean, sources[:2], 1.0).tolist() == [1, 1, 0, 0, CLEAN]
    assert choose_worst(clean, sources, 1.0).tolist() == [1, 2, 0, 0, CLEAN]


def test_sources_of_a_worst_case():
    def entry(attack, eps, norm="l2"):
        return {"attack": attack, "attack_label": attack, "norm": norm, "eps": eps}

    entries = [
        entry("none", 0, None), entry("pgd", 1.0), entry("pgd", 2.0), entry("deepfool", 3.0),
        entry("deepfool", 2.0), entry("fgsm", 1.0, "linf"),
    ]  # fmt: skip
    found = find_sources(entries, "l2", 1.0)
    assert [(each["attack"], each["eps"]) for each in found] == [("pgd", 1.0), ("deepfool", 2.0)]
    assert find_sources(entries, "l2", 3.0) == [entry("deepfool", 3.0)]  # pgd: not at another eps


def test_gathered_images_are_those_chosen():
    images = [np.full((1200, 1, 2, 2), number, np.float32) for number in range(3)]
    chosen = np.arange(1200) % 3 - 1
    readers = [lambda a, b, own=own: own[a:b] for own in images[:2]]
    made = np.concatenate(list(gather_worst(chosen, readers, lambda a, b: images[2][a:b])))
    assert np.array_equal(made[:, 0, 0, 0], np.where(chosen == CLEAN, 2, chosen))


def test_a_file_of_images_is_whole_or_not_there(tmp_path):
    path, images = tmp_path / "a.npy", np.arange(24, dtype=np.float32).reshape(3, 2, 2, 2)
    with (
        pytest.raises(ValueError, match="1 of 3 were not written"),
        writing_images(path, (3, 2, 2, 2)) as out,
    ):
        out.write(images[:2])
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(ValueError, match="must be float32"),
        writing_images(path, (3, 2, 2, 2)) as out,
    ):
        out.write(images.astype(np.float64))
    with writing_images(path, (3, 2, 2, 2)) as out:
        out.write(images[:1])
        out.write(images)  # of more than are missing the first are taken
    assert np.array_equal(np.load(path), images[[0, 0, 1]])
    assert np.array_equal(check_images(path).read(1, 9), images[:2])
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:200] + b"x" + whole[201:], b"", whole[:40], b"no"):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=r"a\.npy"):
            check_images(path)
    path.unlink()
    path.symlink_to(tmp_path / "b.npy")
    with pytest.raises(CorruptFile):
        open_images(path)
