"""No interleaving and no kill spends more than there is, denies what nobody used, or lets anybody go on under a limit
that was changed: 50 sessions at once, over the real deciders and treasury."""

from __future__ import annotations

from collections import Counter

import pytest

from reenact.actors import allotment, mind, step, tool, turn
from reenact.actors import gate as gates
from reenact.actors import purse as money
from tests.conftest import LONG, Figure
from tests.simulation.spending.broken import BROKEN, MISCOUNTED, SHARED
from tests.simulation.spending.world import World, spend

SEEDS, A_CHUNK = (10_000, 250) if LONG else (60, 20)
WITHIN = 500
"""Every broken build is caught within so many seeds."""


def happened(world: World) -> dict[str, int]:
    return {"commits": world.log.commits, "kills": world.kernel.kills, "denied": world.judge.denied}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, SEEDS, A_CHUNK))
def test_whatever_the_order_and_whoever_is_killed_nothing_is_overspent(first: int, figure: Figure) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + A_CHUNK):
        world = spend(seed)
        counts.update(happened(world), calls=world.provider.billed.requests, changed=world.limits.changed)
    assert counts["calls"] > A_CHUNK and counts["denied"] and counts["changed"]
    figure(f"seeds {first} to {first + A_CHUNK - 1}: {dict(counts)}, overspent 0 times")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, SEEDS, A_CHUNK))
def test_what_was_used_before_the_first_limit_counts_whoever_is_killed(first: int, figure: Figure) -> None:
    """It is set in the middle of their work, in some worlds lifted and set again. What is counted is what the log knows
    of, exactly; and from then on a limit is passed by calls that were under way, and by no others."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + A_CHUNK):
        world = spend(seed, free=True)
        counts.update(happened(world), calls=world.provider.billed.requests)
        counts.update(counted=world.evidence.used_free.requests)
    assert counts["counted"] > A_CHUNK and counts["denied"]
    figure(f"seeds {first} to {first + A_CHUNK - 1}: {dict(counts)}, all of it counted")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, SEEDS, A_CHUNK))
def test_who_shares_a_session_spends_what_is_theirs(first: int, figure: Figure) -> None:
    """Three principals send to the same sessions, and one of them has limits of his own: what each of them used is
    counted for them, no call of his is paid by what was allotted for another, and in no 60 seconds are more made than
    his limit of a minute says."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + A_CHUNK):
        world = spend(seed, several=True)
        counts.update(happened(world))
        counts.update({whose: billed.requests for whose, billed in world.provider.billed_to.items()})
    assert counts["ann"] and counts["bob"] and counts["cid"] and counts["denied"]
    figure(f"seeds {first} to {first + A_CHUNK - 1}: {dict(counts)}, each of them counted")


@pytest.mark.parametrize("seed", [13, 77, 1626])
def test_seeds_that_once_failed(seed: int) -> None:
    spend(seed)


@pytest.mark.parametrize("seed", [14, 205, 289, 385, 3035, 8902, 9923, 12124])
def test_seeds_that_once_failed_where_nothing_is_limited_in_the_beginning(seed: int) -> None:
    spend(seed, free=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BROKEN | MISCOUNTED | SHARED)
def test_a_build_that_overspends_is_caught(name: str, figure: Figure) -> None:
    assert {room.money for room in (mind, turn, step, tool, allotment)} == {money}
    assert {room.gates for room in (step, tool)} == {gates}
    with (BROKEN | MISCOUNTED | SHARED)[name]():
        for seed in range(WITHIN):
            try:
                spend(seed, free=name in MISCOUNTED, several=name in SHARED)
            except AssertionError as error:
                figure(f"{name}: found at seed {seed}, {error}")
                return
    pytest.fail(f"{WITHIN} seeds and nobody noticed that {name}")
