"""The parts of a training on several processes that one process can check."""

import pytest
import torch

from robustloss import data_parallel
from robustloss.data import load_dataset
from robustloss.executors import check_shared
from robustloss.schedules import augment
from robustloss.spec import load_spec
from tests.small_run import changed

CPU = torch.device("cpu")


def group_of(size, rank=0):
    """A group that sends nothing."""
    group = data_parallel.Group()
    group.size, group.rank = size, rank
    group.share = lambda count: data_parallel._share(count, rank, size)
    return group


@pytest.fixture
def digits():
    return load_dataset("digits", train_size=20, quiet=True)


def test_shares_cut_a_batch_without_a_gap():
    for count in (2, 7, 8, 41):
        for size in (2, 3, 7):
            shares = [data_parallel._share(count, rank, size) for rank in range(size)]
            assert [i for share in shares for i in range(share.start, share.stop)] == list(
                range(count)
            )
            lengths = [share.stop - share.start for share in shares]
            assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("kind", ["none", "shift", "crop", "crop_flip"])
@pytest.mark.parametrize("size", [None, (6, 5)])
def test_a_share_is_moved_as_the_whole_batch_is(kind, size):
    images = torch.randint(0, 255, (9, 1, 8, 8), dtype=torch.uint8)
    whole = augment(images, kind, 3, size=size)
    parts = [augment(images[a:b], kind, 3, size=size, of=(a, 9)) for a, b in ((0, 4), (4, 9))]
    assert torch.equal(torch.cat(parts), whole)


def test_what_torchrun_cannot_share_is_told():
    spec = load_spec(changed())
    check_shared(spec, "serial", "cpu")
    with pytest.raises(ValueError, match="torchrun has started"):
        check_shared(spec, "processes:2", "cpu")
    with pytest.raises(ValueError, match="cannot be shared by torchrun"):
        check_shared(spec, "serial", "mps")
    with pytest.raises(ValueError, match="minutes cannot be kept"):
        check_shared(load_spec(changed(resources={"minutes": 5})), "serial", "cpu")
