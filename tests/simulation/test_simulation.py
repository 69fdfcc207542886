"""Many worlds, each from a seed. First nothing false may be said; then, once the faults stop, everything must finish.

A failure prints SEED=; `python -m tests.simulation --seed N --trace` shows that world again, line by line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import LONG, Figure
from tests.simulation.broken import BROKEN, build
from tests.simulation.simulate import Report, simulate

SEEDS, A_CHUNK = (5_000, 250) if LONG else (300, 50)
WITHIN = 2_000
"""Every broken build is caught within so many seeds."""

HERE = Path(__file__).resolve().parent
ONCE = [int(line.split()[0]) for line in (HERE / "seeds.txt").read_text().splitlines() if line[:1].isdigit()]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, A_CHUNK))
def test_whatever_happens_nothing_false_is_said_and_everything_finishes(first: int, figure: Figure) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + A_CHUNK):
        report = simulate(seed)
        assert not report.failures, str(report)
        counts.update(events=report.events, deaths=sum(n for what, n in report.counts.items() if "death" in what))
        counts.update(starts=report.counts["starts"])
    figure(f"seeds {first} to {first + A_CHUNK - 1}: {dict(counts)}, 0 failures")


@pytest.mark.parametrize("seed", ONCE)
def test_what_failed_once_does_not_fail_again(seed: int) -> None:
    report = simulate(seed)
    assert not report.failures, str(report)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_build_is_caught(name: str, figure: Figure) -> None:
    with build(name):
        for seed in range(WITHIN):
            if failures := simulate(seed).failures:
                figure(f"{name}: found at seed {seed}, {failures[0].partition(':')[0]}")
                return
    pytest.fail(f"{WITHIN} seeds and nobody noticed that {name}")


def test_a_seed_is_the_same_world_every_time() -> None:
    for seed in range(5):
        assert simulate(seed).trace == simulate(seed).trace
    assert simulate(1).trace != simulate(2).trace


def test_also_in_another_process() -> None:
    program = "from tests.simulation.simulate import simulate; print(*(simulate(seed).trace for seed in range(20)))"
    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=HERE.parent.parent,
            env={**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(traces) == 1


HAPPENS = (
    "action_cancelled",
    "action_expired",
    "action_required",
    "action_resolved",
    "agent_unregistered",
    "closed",
    "container_created",
    "death at cell.accepted",
    "death at cell.decide",
    "death at cell.decided",
    "death at effect.begin",
    "death at effect.told",
    "death at group.commit",
    "death at group.committed",
    "death at group.published",
    "death at tell.begin",
    "death at tell.emitted",
    "death at tell.owed",
    "idempotent took place",
    "image_deleted",
    "image_updated",
    "job_cancelled",
    "job_failed",
    "job_resumed",
    "job_stopping",
    "job_succeeded",
    "job_timed_out",
    "job_waiting",
    "model_failed",
    "probeable took place",
    "read took place",
    "refused: action_changed",
    "refused: action_expired",
    "refused: action_over",
    "refused: bad_resolution",
    "refused: busy",
    "refused: closed",
    "refused: conflict",
    "refused: disk_full",
    "refused: fenced",
    "refused: key_reused",
    "refused: not_a_person",
    "refused: not_found",
    "refused: unknown_outcome",
    "session_attached",
    "session_closed",
    "starts",
    "tool_doubted",
    "tool_unproved",
    "tool_checked",
    "unsafe took place",
    "wired took place",
)


def test_what_should_be_tried_does_happen() -> None:
    """A simulator finds only what it does."""
    counts: Counter[str] = Counter()
    reports: list[Report] = []
    for seed in range(200):
        reports.append(simulate(seed))
        counts.update(reports[-1].counts)
    missing = [what for what in HAPPENS if not counts[what]]
    assert not missing
    assert sum(report.events for report in reports) > 10_000
