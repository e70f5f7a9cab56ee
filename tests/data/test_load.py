"""Data sets: exact content, fixed stratified splits, refused names and sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from robustloss.data.catalogue import DATASETS
from robustloss.data.files import DataError, data_root
from robustloss.data.images import Dataset, ImageSet
from robustloss.data.load import load_dataset
from robustloss.data.splits import check_choice, stratified_split
from robustloss.spec.data import DATASET_SUMMARIES, DataSpec
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import changed


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataSpec(name="digits"))


def need_files_of(name: str) -> None:
    # The marker promises MNIST only.
    if name == "fashion_mnist" and not (data_root(None) / "FashionMNIST").is_dir():
        pytest.skip("the Fashion-MNIST files are not beside those of MNIST")


def sets(data: Dataset) -> list[ImageSet]:
    return [data.train, data.validation, data.test]


def test_digits_are_those_of_scikit_learn(digits):
    images, labels = load_digits(return_X_y=True)
    for part in sets(digits):
        expected = torch.from_numpy(images[part.index]).float().reshape(-1, 1, 8, 8) / 16
        assert torch.equal(part.batch(slice(None)), expected)
        assert torch.equal(part.labels, torch.from_numpy(labels[part.index]))
    assert digits.image_shape == (1, 8, 8)


@pytest.mark.parametrize("name", ["digits", pytest.param("mnist", marks=pytest.mark.mnist)])
def test_sets_have_their_sizes_share_no_image_and_keep_the_order_of_the_file(name):
    data = load_dataset(DataSpec(name=name))
    assert tuple(len(part) for part in sets(data)) == tuple(DATASETS[name].sizes.values())
    from_one_file = sets(data) if name == "digits" else sets(data)[:2]
    together = torch.cat([part.index for part in from_one_file])
    assert torch.equal(together.sort().values, torch.arange(len(together)))
    assert all(bool((part.index.diff() > 0).all()) for part in sets(data))


@pytest.mark.parametrize(
    ("name", "checksum", "validation"),
    [
        ("digits", "ec7136167dbe188a", [2, 13, 29, 32, 57]),
        pytest.param("mnist", "01beb633926a0df2", [24, 45, 47, 69, 93], marks=pytest.mark.mnist),
        pytest.param(
            "fashion_mnist", "69e465a3cc1d6d5f", [24, 45, 47, 69, 93], marks=pytest.mark.mnist
        ),
    ],
)
def test_splits_never_change(name, checksum, validation):
    need_files_of(name)
    # Every published number rests on these: a change here is a change of the data set.
    data = load_dataset(DataSpec(name=name))
    assert data.validation.index[:5].tolist() == validation
    assert data.checksum == checksum


def test_each_class_has_its_share(digits):
    whole = torch.cat([part.labels for part in sets(digits)])
    for part in sets(digits):
        expected = torch.bincount(whole) * len(part) / len(whole)
        assert (torch.bincount(part.labels) - expected).abs().max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_stratified_split_is_a_partition_with_shares_and_smaller_lies_in_larger(seed):
    generator = np.random.default_rng(seed)
    labels = generator.choice(7, size=501, p=generator.dirichlet(np.full(7, 20.0)))
    counts = np.bincount(labels, minlength=7)
    smaller: set[int] = set()
    for size in range(0, 502, 3):
        chosen, rest = stratified_split(labels, size)
        assert np.array_equal(np.sort(np.concatenate([chosen, rest])), np.arange(501))
        error = np.bincount(labels[chosen], minlength=7) - size * counts / 501
        # Each class is rounded once, and the roundings of all seven move the common cut.
        assert (np.abs(error) <= 0.5 + 3.5 * counts / 501 + 1e-9).all()
        assert smaller <= set(chosen.tolist())
        smaller = set(chosen.tolist())


def test_stratified_split_does_not_simply_take_the_first_of_each_class():
    labels = np.repeat(np.arange(2), 500)
    chosen, _ = stratified_split(labels, 100)
    # 50 of 500 drawn at random have a mean near 249.5 with a standard error of about 20.
    assert abs(chosen[:50].mean() - 249.5) < 80


def test_sizes_ask_for_nested_subsets_of_the_same_set(digits):
    small = load_dataset(DataSpec(name="digits", train_size=100, validation_size=30, test_size=50))
    large = load_dataset(DataSpec(name="digits", train_size=200, validation_size=60, test_size=51))
    for part, within, whole in zip(sets(small), sets(large), sets(digits), strict=True):
        assert set(part.index.tolist()) < set(within.index.tolist()) < set(whole.index.tolist())
        counts = torch.bincount(whole.labels) * len(part) / len(whole)
        assert (torch.bincount(part.labels) - counts).abs().max() <= 1
    assert [len(part) for part in sets(small)] == [100, 30, 50]


def test_asking_for_the_whole_set_is_asking_for_nothing(digits):
    same = load_dataset(DataSpec(name="digits", train_size=997, validation_size=300, test_size=500))
    assert same.checksum == digits.checksum


def test_checksum_is_decided_by_each_of_the_three_sets(digits):
    subsets = [{}, {"train_size": 500}, {"validation_size": 100}, {"test_size": 100}]
    assert len({load_dataset(DataSpec(name="digits", **sizes)).checksum for sizes in subsets}) == 4


@pytest.mark.parametrize("train_size", [None, 150])
def test_mean_and_standard_deviation_are_those_of_the_training_pixels(train_size):
    data = load_dataset(DataSpec(name="digits", train_size=train_size))
    pixels = data.train.images.numpy().astype(np.float64) / 16
    assert data.mean == pytest.approx((pixels.mean(),), rel=1e-12)
    assert data.std == pytest.approx((pixels.std(),), rel=1e-12)


def test_batch_gives_new_floats_and_leaves_the_stored_images_alone(digits):
    before = digits.train.images.clone()
    batch = digits.train.batch(torch.tensor([5, 3]))
    assert batch.dtype == torch.float32
    assert torch.equal(batch[1], before[3].float() / 16)
    batch.zero_()
    digits.train.batch(slice(0, 4)).zero_()
    assert torch.equal(digits.train.images, before)
    assert load_dataset(DataSpec(name="digits")).checksum == digits.checksum


def test_batch_divides_by_the_scale_to_the_last_bit():
    every_value = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    one = torch.zeros(1, dtype=torch.int64)
    batch = ImageSet(every_value, one, one, 255.0).batch(one)
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(batch.numpy().ravel(), expected)


def test_take_keeps_images_labels_and_index_together(digits):
    positions = torch.tensor([40, 7, 300])
    taken = digits.train.take(positions)
    assert torch.equal(taken.images, digits.train.images[positions])
    assert torch.equal(taken.labels, digits.train.labels[positions])
    assert torch.equal(taken.index, digits.train.index[positions])
    assert taken.scale == 16


def test_to_moves_every_tensor(digits):
    moved = digits.test.to("meta")
    assert {t.device.type for t in (moved.images, moved.labels, moved.index)} == {"meta"}
    assert digits.test.images.device.type == "cpu"


def test_image_set_refuses_wrong_types_and_shapes():
    images, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3)
    with pytest.raises(
        ValueError, match=r"images \(=torch.float32, .*must be uint8 \(N, C, H, W\)"
    ):
        ImageSet(images.float(), labels, labels, 255.0)
    with pytest.raises(ValueError, match=r"images \(=torch.uint8, \(3, 2, 2\)\) must be uint8"):
        ImageSet(images[:, 0], labels, labels, 255.0)
    with pytest.raises(ValueError, match=r"labels \(=torch.int64, \(2,\)\) must be int64 \(3,\)"):
        ImageSet(images, labels[:2], labels, 255.0)
    with pytest.raises(ValueError, match=r"index \(=torch.int32, .*must be int64"):
        ImageSet(images, labels, labels.int(), 255.0)


def test_unknown_name_is_refused_with_the_known_ones_and_a_guess():
    with pytest.raises(
        DataError,
        match=r"data.name \(='minst'\) must be one of digits, mnist, .*"
        r"; did you mean 'mnist'\?",
    ):
        load_dataset(DataSpec(name="minst"))
    with pytest.raises(DataError) as refusal:
        load_dataset(DataSpec(name="zzz"))
    assert "did you mean" not in str(refusal.value)


@pytest.mark.parametrize("size", [9, 998])
def test_size_out_of_range_is_refused_with_the_rule(size):
    with pytest.raises(
        DataError,
        match=rf"data.train_size \(={size!r}\) must be a whole number in "
        r"\[10, 997\]: digits has 10 classes and 997 images",
    ):
        load_dataset(DataSpec(name="digits", train_size=size))


def test_a_set_with_fewer_images_than_classes_goes_whole_or_not():
    with pytest.raises(DataError, match=r"data.test_size \(=5\) must be 8: x has 10 classes"):
        check_choice(DataSpec(name="digits", test_size=5), 10, {"test": 8}, "x")


@pytest.mark.parametrize("size", [0, -1, 100.0, True, "100"])
def test_a_size_that_is_no_count_is_refused_by_the_spec(size):
    rule = r"data.train_size \(=.*\) must be (>= 1|an integer)"
    with pytest.raises(SpecError, match=rule):
        load_spec(changed(data={"name": "digits", "train_size": size}))


def test_size_is_judged_before_any_file_is_looked_for(tmp_path: Path):
    with pytest.raises(DataError, match=r"data.test_size \(=10001\) .* \[10, 10000\]"):
        load_dataset(DataSpec(name="mnist", test_size=10_001), root=tmp_path)


@pytest.mark.mnist
@pytest.mark.parametrize(
    ("name", "reference"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_real_data_is_what_torchvision_reads(real_data, name, reference):
    from torchvision import datasets

    need_files_of(name)
    data = load_dataset(DataSpec(name=name))
    training = getattr(datasets, reference)(real_data, train=True)
    test = getattr(datasets, reference)(real_data, train=False)
    for part, source in ((data.train, training), (data.validation, training), (data.test, test)):
        assert torch.equal(part.images[:, 0], source.data[part.index])
        assert torch.equal(part.labels, source.targets[part.index])
    assert data.class_names == tuple(
        label.split(" - ")[0] if name == "mnist" else label for label in training.classes
    )


@pytest.mark.parametrize("wrong", [-1, 10, 300])
def test_labels_out_of_range_are_refused(digits, wrong):
    labels = digits.test.labels.clone()
    labels[7] = wrong
    low, high = min(wrong, 0), max(wrong, 9)
    with pytest.raises(
        DataError,
        match=rf"labels of the test set lie in \[{low}, {high}\], .* in \[0, 9\]: it has 10",
    ):
        replace(digits, test=replace(digits.test, labels=labels))


def test_a_fraction_of_each_class_lies_in_a_larger_one_and_changes_training_only(digits):
    small, large = ([0.3] * 10, [0.6, *[1.0] * 9])
    few = load_dataset(DataSpec(name="digits", class_fractions=small))
    more = load_dataset(DataSpec(name="digits", class_fractions=large))
    assert set(few.train.index.tolist()) < set(more.train.index.tolist())
    assert set(more.train.index.tolist()) < set(digits.train.index.tolist())
    whole = digits.class_counts
    assert few.class_counts == [round(0.3 * count) for count in whole]
    assert more.class_counts == [round(0.6 * whole[0]), *whole[1:]]
    for part in (few, more):
        assert torch.equal(part.test.images, digits.test.images)
        assert torch.equal(part.validation.images, digits.validation.images)
        assert part.training_checksum != digits.training_checksum
        assert bool((part.train.index.diff() > 0).all())
    assert few.summary == "training images kept of the classes: 0.3 of each"
    assert more.mean != digits.mean


def test_at_least_one_image_of_each_class_is_kept(digits):
    tiny = load_dataset(DataSpec(name="digits", train_size=20, class_fractions=[1e-6, *[1.0] * 9]))
    assert tiny.class_counts == [1, *[2] * 9]


def test_all_fractions_one_is_the_whole_set(digits):
    same = load_dataset(DataSpec(name="digits", class_fractions=[1.0] * 10))
    assert same.checksum == digits.checksum
    assert same.training_checksum == digits.training_checksum


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        (
            [0.5] * 9,
            r"class_fractions has 9 numbers, but must have 10, one for each class of digits",
        ),
        ([0.5] * 11, r"class_fractions has 11 numbers, but must have 10"),
    ],
)
def test_fractions_that_do_not_fit_are_refused(fractions, message):
    with pytest.raises(DataError, match=message):
        load_dataset(DataSpec(name="digits", class_fractions=fractions))


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([*[1.0] * 9, 0.0], r"data.class_fractions\[9\] \(=0.0\) must be > 0"),
        ([1.5, *[1.0] * 9], r"data.class_fractions\[0\] \(=1.5\) must be <= 1"),
        ([float("nan"), *[1.0] * 9], r"data.class_fractions\[0\] \(=nan\) must be"),
    ],
)
def test_fractions_that_are_no_shares_are_refused_by_the_spec(fractions, message):
    with pytest.raises(SpecError, match=message):
        load_spec(changed(data={"name": "digits", "class_fractions": fractions}))


def test_a_folder_is_for_image_folder_only():
    with pytest.raises(
        SpecError, match=r"data.folder \(=\"x\"\) is for name = \"image_folder\" or"
    ):
        load_spec(changed(data={"name": "digits", "folder": "x"}))
    with pytest.raises(SpecError, match=r"data.folder \(=None\) must be given"):
        load_spec(changed(data={"name": "image_folder"}))


def test_every_name_of_the_spec_has_a_source_and_every_source_a_name():
    assert list(DATASETS) == list(DATASET_SUMMARIES)
    for source in DATASETS.values():
        assert bool(source.class_names) == bool(source.sizes)


def test_training_checksum_is_decided_by_what_a_training_sees(digits):
    subsets = [{}, {"train_size": 500}, {"validation_size": 100}]
    found = [load_dataset(DataSpec(name="digits", **sizes)).training_checksum for sizes in subsets]
    assert len(set(found)) == 3
    assert (
        load_dataset(DataSpec(name="digits", test_size=100)).training_checksum
        == digits.training_checksum
    )
