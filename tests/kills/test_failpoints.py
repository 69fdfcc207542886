"""Killed at every failpoint there is, ten times and more."""

from __future__ import annotations

from pathlib import Path

import pytest

from reenact.events import failpoint
from tests.conftest import Figure
from tests.kills.judges import what_follows
from tests.kills.places import AGAIN, IN_A_TURN, WHERE
from tests.kills.processes import KILLED, Processes
from tests.kills.world import World

KILLS = 10


@pytest.mark.parametrize("name", failpoint.NAMES)
def test_killed_ten_times_at_every_failpoint(
    processes: Processes, template: Path, tmp_path: Path, name: str, figure: Figure
) -> None:
    """The so-many-th time it is come by, spread over all the times that it is come by at all."""
    where = WHERE.get(name, {})
    role, more = where.get("role", "work"), where.get("more", {})
    always = {"checkpoint_pages": 2, **where.get("always", {})}

    def begun(number: int) -> World:
        folder = tmp_path / str(number)
        folder.mkdir()
        world = World(processes, template, folder, **always)
        if "first" in where:
            world.run("work", **where["first"])
        return world

    passed = begun(0).run(role, counts=True, **more)["said"]["passed"].get(name, 0)
    assert passed > 0, f"{role} never comes by {name}"
    kills = runs = 0
    while kills < KILLS:
        world, at = begun(runs + 1), 1 + runs * passed // KILLS % passed
        ended = world.run(role, failpoint=f"{name}:{at}:kill", **more)
        runs += 1
        assert runs < 3 * KILLS, f"{ended}: it is hardly ever killed there"
        kills += ended["code"] == KILLED
        what_follows(world, role, where)
    figure(f"{name}: {kills} kills, come by {passed} times a run, 0 violations")


def test_every_place_is_one_that_exists() -> None:
    for place in (*IN_A_TURN, *AGAIN):
        assert place.partition(":")[0] in failpoint.NAMES
