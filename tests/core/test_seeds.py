"""Draws are functions of seed, stream and step."""

from __future__ import annotations

import torch

from bayesdiff.core.seeds import derive, generator


def test_the_same_place_gives_the_same_draw() -> None:
    torch.manual_seed(1)
    first = torch.randn(5, generator=generator(3, "noise", 7))
    torch.manual_seed(2)
    assert torch.equal(first, torch.randn(5, generator=generator(3, "noise", 7)))


def test_a_draw_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    torch.randn(5, generator=generator(3, "noise", 7))
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_streams_and_steps_are_all_told_apart() -> None:
    places = [
        (seed, stream, step) for seed in range(8) for stream in ("noise", "timesteps", "weights/a", "weights/b") for step in range(50)
    ]
    assert len({derive(*place) for place in places}) == len(places)


def test_digits_do_not_run_together() -> None:
    assert len({derive(1, "1", 1), derive(11, "", 1), derive(1, "", 11), derive(1, "11", 0)}) == 4


def test_values_are_stable_across_versions() -> None:
    assert (derive(0, "noise"), derive(1, "shots", 2)) == (6_006_011_211_322_034_958, 2_689_097_667_538_719_910)


def test_values_fit_in_63_bits_and_use_them() -> None:
    values = [derive(0, "noise", step) for step in range(200)]
    assert all(0 <= value < 2**63 for value in values)
    assert max(values) > 2**62
