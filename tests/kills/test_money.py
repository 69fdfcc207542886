"""Killed around what is allotted, spent, called back and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills.judges import killed
from tests.kills.processes import Processes
from tests.kills.world import World

AROUND_MONEY = [
    "ledger.ask:1",
    "ledger.asked:1",
    *(f"{place}:{at}" for place in ("commit.begin", "commit.executed", "tell.owed") for at in range(2, 8)),
]
"""Before and behind each commit of a turn under a budget: asking, allotting, taking, setting aside, settling."""


@pytest.mark.parametrize("place", AROUND_MONEY)
def test_killed_around_money(processes: Processes, template: Path, tmp_path: Path, place: str) -> None:
    """The one who resumes verifies the log: nothing allotted past a limit, no model called without money set aside."""
    limits = {"max_requests_daily": 40, "max_tokens_total": 10**6, "max_tool_calls_daily": 40}
    killed(World(processes, template, tmp_path, budget=limits), failpoint=f"{place}:kill")


@pytest.mark.parametrize(
    "place",
    [
        "ledger.recall:1",
        "ledger.recalled:1",
        *(f"{place}:{at}" for place in ("commit.executed", "tell.owed") for at in range(5, 9)),
    ],
)
def test_killed_between_a_limit_and_what_is_called_back_for_it(
    processes: Processes, template: Path, tmp_path: Path, place: str
) -> None:
    """A limit is set at every call of the model. The one who resumes takes up what is owed, sets it back, and verifies
    that nobody went on with what was allotted before."""
    limits = {"max_requests_daily": 40, "max_tool_calls_daily": 40}
    killed(World(processes, template, tmp_path, budget=limits, limits="model_called"), failpoint=f"{place}:kill")


@pytest.mark.parametrize(
    "place",
    [
        "ledger.count:1",
        "ledger.count:2",
        "ledger.counted:1",
        *(f"{place}:{at}" for place in ("commit.executed", "tell.owed") for at in range(2, 7)),
    ],
)
def test_killed_between_the_first_limit_and_the_count_of_what_was_used_before(
    processes: Processes, template: Path, tmp_path: Path, place: str
) -> None:
    """Nothing is limited until the first call of the model is under way. The one who resumes counts what is owed, and
    verifies that it is all, and that nothing was set aside before."""
    killed(World(processes, template, tmp_path, limits="model_called"), failpoint=f"{place}:kill")
