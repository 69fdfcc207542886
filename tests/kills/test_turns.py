"""Killed at every boundary of a turn with four tools, one of each class."""

from __future__ import annotations

import pytest

from tests.kills.child import CLASSES
from tests.kills.judges import judge, killed
from tests.kills.places import IN_A_TURN
from tests.kills.world import World

EVENTS = 27
"""Events of the turn that are told, from the accepted input to the end of the job."""


def test_without_a_kill_everything_takes_place_once(world: World) -> None:
    ended = world.run("work")
    assert ended["said"] == {"status": "succeeded", "told": EVENTS}
    judge(world, world.resumed(), kills=0)


@pytest.mark.parametrize("event", range(1, EVENTS + 1))
def test_killed_when_an_event_was_told(world: World, event: int) -> None:
    killed(world, event=event)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_inside_a_tool(world: World, name: str, moment: str) -> None:
    killed(world, inside=f"{name} {moment}")


@pytest.mark.parametrize("place", IN_A_TURN)
def test_killed_at_a_failpoint(world: World, place: str) -> None:
    killed(world, failpoint=f"{place}:kill")
