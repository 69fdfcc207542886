"""Killed in the commits that the event loop makes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Figure
from tests.kills.child import CLASSES
from tests.kills.judges import killed, what_follows
from tests.kills.processes import KILLED, Processes
from tests.kills.world import World, alone


@pytest.mark.parametrize("commit", [1, 2])
@pytest.mark.parametrize("name", ["cell.decided", "commit.begin", "commit.recorded", "commit.executed", "tell.begin"])
def test_killed_while_the_loop_commits(
    processes: Processes, template: Path, tmp_path: Path, name: str, commit: int
) -> None:
    """In a commit that is the loop's own. The one who resumes commits on its loop, too."""
    killed(alone(processes, template, tmp_path), failpoint=f"{name}:{commit}:kill")


ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "a call of each class": ("work", {"calls": list(CLASSES)}),
    "a call": ("work", {}),
    "under limits": ("work", {"budget": {"max_requests_daily": 40, "max_tool_calls_daily": 40}}),
    "a limit that changes": ("work", {"budget": {"max_requests_daily": 40}, "limits": "model_called"}),
    "a call that a person allows": ("approve", {"calls": ["wire"]}),
    "a limit that a person raises": (
        "approve",
        {"calls": ["wire"], "budget": {"max_requests_daily": 0, "on_breach": "ask"}},
    ),
}
"""Turns whose commits are the loop's own: what the process is there for, and what is so in its world."""


@pytest.mark.long
@pytest.mark.parametrize("turn", ALONE)
def test_killed_at_every_failpoint_of_every_commit_of_the_loop(
    processes: Processes, template: Path, tmp_path: Path, turn: str, figure: Figure
) -> None:
    role, always = ALONE[turn]

    def begun(name: str) -> World:
        folder = tmp_path / name
        folder.mkdir()
        return alone(processes, template, folder, **always)

    passed = begun("counted").run(role, counts=True)["said"]["passed"]
    assert passed["commit.executed"] >= 1 and passed["tell.replied"] >= 1
    kills = 0
    for place in [f"{name}:{at}" for name, times in passed.items() for at in range(1, times + 1)]:
        world = begun(place)
        kills += world.run(role, failpoint=f"{place}:kill")["code"] == KILLED
        what_follows(world, role, {"always": always})
    assert kills >= sum(passed.values()) // 2, "it is hardly ever killed there"
    figure(f"on the loop, {turn}: {kills} kills at {len(passed)} failpoints, 0 violations")
