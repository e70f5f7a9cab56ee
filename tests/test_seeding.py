"""Random streams are named by plain values and leave the global state alone."""

import torch

from robustloss.seeding import derive_seed, new_generator, using_repeatable_kernels, using_seed


def test_a_seed_is_golden():
    # Every stored run depends on this number: it may not change between versions.
    assert derive_seed("order", 0, 1) == 8639817837933930023


def test_parts_do_not_run_together():
    seeds = {derive_seed(*p) for p in [("a", 1, 2), ("a", 12), ("a", "1", 2), ("a1", 2), ("a", 2)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_one_name_agree():
    first, second = (torch.rand(5, generator=new_generator("x", 3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(5, generator=new_generator("x", 4)))


def test_seeded_blocks_repeat_and_leave_the_global_state():
    before = torch.random.get_rng_state()
    with using_seed("weights", 0):
        first = torch.rand(4)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    with using_seed("weights", 0):
        assert torch.equal(first, torch.rand(4))


def test_repeatable_restores_the_flags():
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with using_repeatable_kernels():
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == before
