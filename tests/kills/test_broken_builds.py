"""These tests can fail: builds with one thing wrong each are caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.kills.judges import killed, nothing_without_a_grant, what_follows
from tests.kills.processes import Processes
from tests.kills.world import World, alone


@pytest.mark.parametrize(
    ("broken", "where", "found"),
    [
        ("pay is declared idempotent", {"inside": "pay after"}, "pay took place 2 times"),
        ("an unsafe call runs again after a crash", {"inside": "pay after"}, "took place 2 times"),
        ("an earlier owner's effects are just run", {"inside": "pay after"}, "took place 2 times"),
        ("it is told before it is committed", {"failpoint": "commit.begin:1:sleep=9", "event": 6}, "not in the log"),
        ("what was owed is forgotten by the next owner", {"inside": "pay before"}, "TimeoutError"),
    ],
)
def test_a_broken_build_is_caught(
    processes: Processes, template: Path, tmp_path: Path, broken: str, where: dict[str, Any], found: str
) -> None:
    world = World(processes, template, tmp_path, broken)
    with pytest.raises(AssertionError, match=found):
        killed(world, **where)


def test_a_loop_that_answers_before_it_commits_is_caught(processes: Processes, template: Path, tmp_path: Path) -> None:
    world = alone(processes, template, tmp_path, "the loop answers before it commits")
    with pytest.raises(AssertionError, match="not in the log"):
        killed(world, failpoint="commit.begin:1:kill")


def test_a_build_in_which_nobody_is_asked_is_caught(processes: Processes, template: Path, tmp_path: Path) -> None:
    world = World(processes, template, tmp_path, "nobody is asked", calls=["wire"])
    world.run("work")
    with pytest.raises(AssertionError, match="without a grant"):
        nothing_without_a_grant(world)


def test_tables_that_took_a_part_twice_are_caught(processes: Processes, template: Path, tmp_path: Path) -> None:
    """The broken build: the position is forgotten, the rows are not."""
    world = World(processes, template, tmp_path)
    world.run("work")
    world.run("project")
    with duckdb.connect(str(world.folder / "tables.duckdb")) as connection:
        connection.execute("UPDATE tool_calls SET runs = runs + 1")
    with pytest.raises(AssertionError, match="rebuilt over a kill"):
        what_follows(world, "project", {})
