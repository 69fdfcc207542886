"""Killed again, while what was left is taken up."""

from __future__ import annotations

import random

import pytest

from tests.kills.child import CLASSES
from tests.kills.judges import judge
from tests.kills.places import AGAIN
from tests.kills.processes import KILLED
from tests.kills.world import World


@pytest.mark.parametrize("place", AGAIN)
def test_killed_again_while_it_takes_up_what_was_left(world: World, place: str) -> None:
    assert world.run("work", inside="pay after")["code"] == KILLED
    ended = world.run("resume", failpoint=f"{place}:kill")
    if place.startswith("probe"):
        assert ended["code"] in (0, KILLED)  # where the tool that can be asked about was done before the kill
    else:
        assert ended["code"] == KILLED, ended
    if ended["code"] == KILLED:
        judge(world, world.resumed(), kills=2)
    else:
        judge(world, ended["said"])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(500))
def test_killed_at_a_random_moment_and_perhaps_again(world: World, seed: int) -> None:
    chance = random.Random(seed)
    kills = 0
    if chance.random() < 0.5:
        kills += world.run("work", kill_after_s=chance.uniform(0, 0.12))["code"] == KILLED
    else:
        kills += world.run("work", inside=f"{chance.choice(list(CLASSES))} after")["code"] == KILLED
    while chance.random() < 0.4:
        ended = world.run("resume", kill_after_s=chance.uniform(0, 0.12))
        if ended["code"] == 0:
            judge(world, ended["said"], kills=kills)
            return
        kills += 1
    judge(world, world.resumed(), kills=kills)
