import numpy as np
import pytest
import torch
from scipy import stats

from robustloss.attacks import ImageNoise
from robustloss.attacks.noise import philox

INDEX = torch.tensor([3, 17, 2**40, 0, 9, 100])
SHAPE = (1, 7, 5)

# Published known answers of Philox4x32-10 (Random123, kat_vectors): counter, key, output.
KNOWN_ANSWERS = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected) -> None:
    words = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in words) == expected


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_an_image_gets_the_same_numbers_in_any_company(kind: str) -> None:
    together = getattr(ImageNoise(5, INDEX), kind)(SHAPE)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    assert torch.equal(getattr(ImageNoise(5, INDEX[order]), kind)(SHAPE), together[order])
    for row, index in enumerate(INDEX):
        assert torch.equal(getattr(ImageNoise(5, index[None]), kind)(SHAPE)[0], together[row])


def test_seed_index_and_draw_number_each_decide() -> None:
    noise = ImageNoise(5, INDEX)
    first, second = noise.uniform(SHAPE), noise.uniform(SHAPE)
    other = ImageNoise(6, INDEX).uniform(SHAPE)
    rows = torch.cat([first, second, other]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == 18
    high = ImageNoise(5 + 2**40, INDEX).uniform(SHAPE)  # beyond the lower half of the seed
    assert not torch.equal(first, high)


def test_a_subset_counts_its_own_draws_and_the_batch_sees_them() -> None:
    """An iterative attack that drops finished images must not change the others' numbers."""
    alone = ImageNoise(1, INDEX[:1])
    expected = [alone.uniform(SHAPE)[0] for _ in range(4)]
    noise = ImageNoise(1, INDEX)
    found = [noise.uniform(SHAPE)[0]]
    active = torch.tensor([True, False, True, False, False, False])
    found.append(noise.select(active).uniform(SHAPE)[0])
    subset = noise.select(active)
    found.append(subset.select(torch.tensor([True, False])).uniform(SHAPE)[0])
    found.append(noise.uniform(SHAPE)[0])
    assert torch.equal(torch.stack(found), torch.stack(expected))
    # The second image sat out twice: its next number is its second.
    quiet = ImageNoise(1, INDEX[1:2])
    quiet.uniform(SHAPE)
    fresh = ImageNoise(1, INDEX)
    fresh.uniform(SHAPE)
    fresh.select(active).uniform(SHAPE)
    assert torch.equal(fresh.uniform(SHAPE)[1], quiet.uniform(SHAPE)[0])


def test_restart_begins_again() -> None:
    noise = ImageNoise(2, INDEX)
    first = noise.normal(SHAPE)
    assert not torch.equal(noise.normal(SHAPE), first)
    assert torch.equal(noise.restart().normal(SHAPE), first)


def test_uniform_is_uniform_on_the_half_open_interval() -> None:
    numbers = ImageNoise(0, torch.arange(2000)).uniform((101,))
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 0.01
    # Neighbouring images, neighbouring pixels and successive draws are uncorrelated.
    noise = ImageNoise(0, torch.arange(2000))
    other = noise.uniform((101,)), noise.uniform((101,))
    pairs = [(numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1]), other]
    for left, right in pairs:
        assert abs(np.corrcoef(left.flatten(), right.flatten())[0, 1]) < 0.01


def test_normal_is_standard_normal() -> None:
    numbers = ImageNoise(0, torch.arange(2000)).normal((101,)).flatten().numpy()
    assert stats.kstest(numbers, "norm").pvalue > 0.01
    assert stats.kurtosis(numbers) == pytest.approx(0, abs=0.05)
    pairs = numbers.reshape(2000, 101)[:, :100].reshape(-1, 2)
    assert abs(np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1]) < 0.01


def test_large_images_do_not_depend_on_how_the_work_is_cut(monkeypatch) -> None:
    whole = ImageNoise(0, INDEX).normal((64,))
    monkeypatch.setattr("robustloss.attacks.noise._WORDS_AT_ONCE", 100)
    assert torch.equal(ImageNoise(0, INDEX).normal((64,)), whole)


def test_batch_seed_is_decided_by_seed_and_indices() -> None:
    seeds = {
        ImageNoise(0, INDEX).batch_seed(),
        ImageNoise(1, INDEX).batch_seed(),
        ImageNoise(0, INDEX[:5]).batch_seed(),
        ImageNoise(0, INDEX.flip(0)).batch_seed(),
    }
    assert len(seeds) == 4
    assert ImageNoise(0, INDEX.clone()).batch_seed() in seeds


@pytest.mark.parametrize("mask", [torch.tensor([0, 1]), torch.tensor([True])])
def test_a_mask_that_is_none_is_refused(mask) -> None:
    with pytest.raises(ValueError, match=r"mask .* must be bool of shape \(6,\)"):
        ImageNoise(0, INDEX).select(mask)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_bits_on_cpu_and_cuda() -> None:
    on_cpu, on_cuda = ImageNoise(5, INDEX), ImageNoise(5, INDEX.cuda())
    assert torch.equal(on_cuda.uniform(SHAPE).cpu(), on_cpu.uniform(SHAPE))
    torch.testing.assert_close(on_cuda.normal(SHAPE).cpu(), on_cpu.normal(SHAPE), rtol=0, atol=1e-6)
