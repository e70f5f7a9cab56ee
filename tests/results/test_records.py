"""A Record keeps its shapes, its bytes and its refusals."""

from dataclasses import fields, replace

import numpy as np
import pytest

from robustloss import array_files
from robustloss.results.records import (
    MAX_IMAGES,
    Record,
    cut_record,
    join_records,
    load_record,
    save_record,
    validation_record,
)
from robustloss.storage import CorruptFile


def make(n: int = 5, classes: int = 3, **changes) -> Record:
    rng = np.random.default_rng(n)
    values = {
        "index": np.arange(n) * 7,
        "labels": np.arange(n) % classes,
        "logits": rng.normal(size=(n, classes)).astype(np.float32),
        "class_log_likelihood": rng.normal(size=(n, classes)).astype(np.float32),
        "features": rng.normal(size=(n, 4)).astype(np.float32),
        "linf": np.full(n, 0.1, np.float32),
        "l2": np.full(n, 0.3, np.float32),
        "zero_gradient": np.arange(n) == 1,
        "radius": np.full(n, np.inf, np.float32),
        "images": rng.random((min(n, 2), 1, 8, 8)).astype(np.float32),
    }
    return Record(**(values | changes))


def assert_same(first: Record, second: Record) -> None:
    for field in fields(Record):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if ours is None:
            assert theirs is None
        else:
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "record",
    [
        make(),
        make(features=None, zero_gradient=None, radius=None),
        make(1),
        make(outside=np.arange(5) > 3, predictions_8bit=np.arange(5) % 3),
    ],
)
def test_a_record_comes_back_from_disk(tmp_path, record):
    save_record(tmp_path / "a.npz", record, {"eps": 0.1})
    assert_same(load_record(tmp_path / "a.npz"), record)
    save_record(tmp_path / "b.npz", record, {"eps": 0.1})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_record_of_an_older_run_has_no_later_arrays(tmp_path):
    save_record(tmp_path / "a.npz", make())
    found = load_record(tmp_path / "a.npz")
    assert found.outside is found.predictions_8bit is None


def test_predictions_are_the_first_largest_logit():
    record = make(3, logits=np.array([[1, 1, 0], [0, 2, 1], [-9, -9, -9]], np.float32))
    np.testing.assert_array_equal(record.predictions, [0, 1, 0])
    np.testing.assert_array_equal(record.correct, [True, True, False])
    assert record.n == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros((4, 3))}, r"logits \(shape \(4, 3\)\) must be \(5, K\)"),
        ({"class_log_likelihood": np.zeros((5, 2))}, r"shape \(5, 2\)\) must be \(5, 3\)"),
        ({"features": np.zeros(5)}, r"features \(shape \(5,\)\) must be \(5, D\)"),
        ({"linf": np.zeros((5, 1))}, r"linf \(shape \(5, 1\)\) must be \(5\)"),
        ({"labels": np.zeros(5)}, r"labels \(dtype float64\) must be integer"),
        ({"zero_gradient": np.zeros(5)}, r"zero_gradient \(dtype float64\) must be bool"),
        ({"outside": np.zeros(5)}, r"outside \(dtype float64\) must be bool"),
        ({"outside": np.zeros(4, bool)}, r"outside \(shape \(4,\)\) must be \(5\)"),
        ({"predictions_8bit": np.zeros(5)}, r"predictions_8bit \(dtype float64\) must be integer"),
        ({"logits": np.zeros((5, 3), int)}, r"logits \(dtype int64\) must be float"),
        ({"labels": np.array([0, 1, 2, 3, 0])}, r"from 0 to 3\) must lie in \[0, 3\)"),
        ({"labels": np.array([0, 1, 2, -1, 0])}, r"from -1 to 2\) must lie in \[0, 3\)"),
        ({"images": np.zeros((6, 1, 8, 8))}, r"images \(6 of 5\) must be the first 64 at most"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_record_keeps_at_most_64_images():
    make(70, images=np.zeros((64, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"images \(65 of 70\)"):
        make(70, images=np.zeros((65, 1, 2, 2)))


def test_an_empty_record_is_refused():
    with pytest.raises(ValueError, match="must hold at least one image"):
        make(0)


def test_a_file_that_holds_something_else_is_no_record(tmp_path):
    array_files.write_arrays(tmp_path / "a.npz", {"logits": np.zeros((2, 3))})
    with pytest.raises(CorruptFile, match=r"holds no record: .*missing"):
        load_record(tmp_path / "a.npz")
    arrays = {**make().arrays, "labels": np.zeros(4, int)}
    array_files.write_arrays(tmp_path / "a.npz", arrays)
    with pytest.raises(CorruptFile, match=r"holds no record: index .shape \(5,\). must be \(4\)"):
        load_record(tmp_path / "a.npz")


@pytest.mark.parametrize("field", ["logits", "class_log_likelihood"])
def test_nan_is_refused_by_the_name_of_the_record(field):
    values = getattr(make(), field).copy()
    values[[0, 3], 1] = np.nan
    with pytest.raises(ValueError, match=rf"record PGD at eps 0.1: {field} is NaN for 2 of 5 ima"):
        replace(make(), **{field: values}).check_numbers("PGD at eps 0.1")


def test_a_prediction_needs_a_finite_logit_and_a_likelihood_may_be_infinite():
    logits = make().logits.copy()
    logits[0] = -np.inf
    with pytest.raises(ValueError, match="the largest logit is infinite for 1 of 5 images"):
        make(logits=logits).check_numbers("x")
    make(class_log_likelihood=np.full((5, 3), -np.inf, np.float32)).check_numbers("x")


def test_the_validation_pass_is_a_record():
    record = make()
    names = ("index", "labels", "logits", "class_log_likelihood", "features")
    arrays = {f"validation_{name}": getattr(record, name) for name in names}
    found = validation_record({**arrays, "train_labels": np.zeros(9)})
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), getattr(record, name))
    assert not found.linf.any()
    del arrays["validation_features"]
    assert validation_record(arrays).features is None
    del arrays["validation_logits"]
    with pytest.raises(ValueError, match="reference has no 'validation_logits'"):
        validation_record(arrays)


def test_pieces_joined_are_the_whole_record():
    record = make(outside=np.arange(5) > 3, predictions_8bit=np.arange(5) % 3)
    pieces = [cut_record(record, *cut) for cut in ((0, 1), (1, 4), (4, 5))]
    assert [len(piece.images) for piece in pieces] == [1, 1, 0]
    assert_same(join_records(pieces), record)


def test_joined_records_keep_the_first_pictures_only():
    pictures = np.arange(70.0).reshape(70, 1, 1, 1)
    pieces = [make(35, images=pictures[:35]), make(35, images=pictures[35:])]
    np.testing.assert_array_equal(join_records(pieces).images, pictures[:MAX_IMAGES])


def test_pieces_that_hold_different_arrays_are_refused():
    first, second = make(zero_gradient=np.zeros(5, bool)), make(zero_gradient=None)
    with pytest.raises(ValueError, match=r"zero_gradient \(shape \(5,\)\) must be \(10\)"):
        join_records([first, second])
