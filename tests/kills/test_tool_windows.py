"""Killed in every window around a tool, of each class alone."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import LONG, Figure
from tests.kills.child import CLASSES
from tests.kills.judges import judge
from tests.kills.processes import KILLED, Processes
from tests.kills.world import World

WINDOWS = {
    "its start is decided, and not stored": "cell.decided:2",
    "its start is stored, and nobody knows": "group.committed:2",
    "it is about to be entered": "tool.start:1",
    "it is in it, and has done nothing": "before",
    "it is in it, and has done it": "after",
    "it has returned, and that is not told": "effect.performed:2",
    "its end is decided, and not stored": "cell.decided:3",
    "its end is stored, and nobody knows": "group.committed:3",
}
TIMES = 15 if LONG else 1


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", CLASSES)
def test_killed_in_a_window_around_a_tool(
    processes: Processes, template: Path, tmp_path: Path, name: str, window: str, figure: Figure
) -> None:
    """Of each class alone, once or twice in a row, with one worker or more."""
    effects: Counter[int] = Counter()
    asked = 0
    for number in range(TIMES):
        chance = random.Random(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        world = World(processes, template, folder, calls=[name], threads=chance.choice([1, 2, 4]))
        place = WINDOWS[window]
        case = {"inside": f"{name} {place}"} if ":" not in place else {"failpoint": f"{place}:kill"}
        kills = world.run("work", **case)["code"] == KILLED
        assert kills, f"not killed where {window}"
        if chance.random() < 0.3:
            again = f"{chance.choice(['group.committed', 'cell.decided', 'effect.begin'])}:{chance.randint(1, 3)}:kill"
            kills += world.run("resume", failpoint=again)["code"] == KILLED
        said = world.resumed()
        judge(world, said, kills=kills)
        effects[len(world.lines(f"{name}.effects"))] += 1
        person = any(proof == "person" for _, _, proof in said["ends"])
        asked += person
        if kills == 1 and window.startswith(("its start is decided", "its end is stored")):
            assert not person, "nothing is in doubt there"
    figure(f"{CLASSES[name]}, {window}: {TIMES} kills, took place {dict(effects)}, {asked} put to a person")
    if CLASSES[name] == "unsafe":
        assert set(effects) <= {0, 1}
