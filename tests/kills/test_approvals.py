"""Killed around an approval: nothing starts without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reenact.events import failpoint
from tests.conftest import LONG, Figure
from tests.kills.judges import allowed, nothing_without_a_grant
from tests.kills.places import WHERE
from tests.kills.processes import KILLED, Processes
from tests.kills.world import World

AROUND = [name for name in failpoint.NAMES if name not in WHERE and not name.startswith("checkpoint.")]
AROUND.append("launch.found")
KILLED_AROUND = 10 if LONG else 1


@pytest.mark.parametrize("calls", [["wire"], ["wire", "pay", "wire"]], ids=["alone", "beside others"])
@pytest.mark.parametrize("name", AROUND)
def test_killed_around_an_approval_nothing_starts_without_it(
    processes: Processes, template: Path, tmp_path: Path, name: str, calls: list[str], figure: Figure
) -> None:
    """Killed at every failpoint of a turn that waits for a person; then looked at by one who decides nothing. Beside
    others: the question is put, a call beside it ends, one of two is answered, it is launched, it starts, and the job
    waits on for the other."""

    def begun(number: int) -> World:
        folder = tmp_path / str(number)
        folder.mkdir()
        return World(processes, template, folder, calls=calls)

    passed = begun(0).run("approve", counts=True)["said"]["passed"].get(name, 0)
    assert passed > 0, f"approve never comes by {name}"
    kills = early = number = 0
    while kills < KILLED_AROUND:
        number += 1
        assert number <= 3 * KILLED_AROUND, "it is hardly ever killed there"
        world, at = begun(number), 1 + (number * passed * 7 // 10) % passed
        kills += world.run("approve", failpoint=f"{name}:{at}:kill")["code"] == KILLED
        if number % 2:
            early += not nothing_without_a_grant(world)
        allowed(world, approves=number % 3 != 2)
    figure(f"{name}, {len(calls)} calls: {kills} kills, {early} before the grant, 0 starts without one")
