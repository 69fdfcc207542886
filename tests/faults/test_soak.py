"""Memory over a long run: sessions begin, talk and are left, with tools, failures, a watcher; nothing stays behind."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reenact import Runtime
from reenact.actors.system import ActorSystem
from reenact.adapters.logs import names, sqlite
from reenact.adapters.models import Models, Retries, RetryPolicy
from reenact.adapters.models.scripted import Scripted
from reenact.catalog import agents
from reenact.cli.verify import verify
from reenact.flow.telling import Telling
from tests.conftest import LONG, Figure
from tests.faults.logs import THREE_CALLS, TOOLS

SOAK_S = float(os.environ.get("REENACT_SOAK_S", "300" if LONG else "3"))
GROWTH_MIB = 16.0
"""How much 100,000 turns in 20,000 sessions may add: memory is never quite as it was."""
SESSIONS = 50  # at a time

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see its own memory")


def rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def slope(points: list[tuple[float, float]]) -> float:
    """By how much the second value rises when the first rises by one: least squares."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


attempts = [0]


def steps(request: Any, seen: Any) -> Any:
    if type(request.items[-1]).__name__ == "ResultItem":
        return THREE_CALLS[1]
    attempts[0] += 1
    return THREE_CALLS[0] | ({"error": {"code": "overloaded"}} if attempts[0] % 10 == 0 else {})


def soak(path: Path, lasts_s: float = SOAK_S, *, leaks: bool = False) -> list[tuple[float, int, float]]:
    """Talk for so long. Gives (seconds, turns, memory) over time. Its bounds are reached within seconds.

    No session is closed or looked at again. leaks: what is at hand of one stays so when it sleeps: a broken build.
    """
    sqlite.LANES_MAX = names.NAMES_MAX = 1000
    agents.AGENTS_MAX = 200
    if leaks:
        Telling.asleep = lambda self, stream: None  # type: ignore[method-assign]
    ActorSystem.__init__.__kwdefaults__["awake_max"] = 200
    turns = 0

    async def main() -> list[tuple[float, int, float]]:
        models = Models({"scripted": Scripted(steps)})
        retries = Retries(RetryPolicy(wait_initial_s=0.001, wait_max_s=0.001, jitter_s=0))
        agent = {"model": "scripted:any"}
        url = f"sqlite:///{path}"
        async with Runtime(url, tools=TOOLS, models=models, retries=retries, default_agent=agent) as runtime:
            bot = await runtime.image("soak")
            runtime.on_any(lambda event: None)
            began, points = time.monotonic(), list[tuple[float, int, float]]()

            async def talk() -> None:
                nonlocal turns
                while time.monotonic() - began < lasts_s:
                    session_id = await runtime.new_session(bot.id)
                    for turn in range(5):
                        run = await runtime.send(
                            bot.id, f"go {turn}", session_id=session_id, key=f"{session_id}-{turn}"
                        )
                        assert (await run.result()).status == "succeeded"
                        turns += 1

            async def look() -> None:
                while time.monotonic() - began < lasts_s:
                    points.append((time.monotonic() - began, turns, rss_mib()))
                    await asyncio.sleep(lasts_s / 200)

            await asyncio.gather(look(), *(talk() for _ in range(SESSIONS)))
            return points

    return asyncio.run(main())


@pytest.mark.long
@pytest.mark.timeout(SOAK_S * 2 + 600)
def test_memory_does_not_grow_with_what_is_over(tmp_path: Path, root: Path, figure: Figure) -> None:
    """In a process of its own: what other tests left behind in this one could be used again, and hide a growth."""
    growth = grown(tmp_path / "log.db", root, figure, "soak", SOAK_S)
    assert growth < GROWTH_MIB or SOAK_S < 60
    assert verify(str(tmp_path / "log.db")).sound


@pytest.mark.long
@pytest.mark.timeout(SOAK_S * 2 + 600)
def test_what_stays_behind_is_seen(tmp_path: Path, root: Path, figure: Figure) -> None:
    lasts_s = SOAK_S / 3
    growth = grown(tmp_path / "log.db", root, figure, "soak of a build that leaks", lasts_s, leaks=True)
    assert growth > GROWTH_MIB or lasts_s < 60


def grown(path: Path, root: Path, figure: Figure, title: str, lasts_s: float, *, leaks: bool = False) -> float:
    """MiB that 100,000 turns add, in a process of its own: by what came after the first third."""
    program = (
        "import json, sys; from tests.faults.test_soak import soak;"
        f" print(json.dumps(soak(sys.argv[1], {lasts_s}, leaks={leaks})))"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": "."}, stdout=subprocess.PIPE, check=True)
    points = json.loads(done.stdout)
    turns = points[-1][1]
    warm = [point for point in points if point[0] > lasts_s / 3]
    growth = slope([(turn / 100_000, mib) for _, turn, mib in warm])
    figure(
        f"{title}: {turns} turns in {lasts_s:.0f} s, RSS {points[0][2]:.0f} -> {warm[0][2]:.0f} ->"
        f" {points[-1][2]:.0f} MiB, {growth:.1f} MiB for 100,000 turns, {path.stat().st_size / turns:.0f} bytes a turn"
    )
    return growth


def test_a_leak_is_seen_by_its_slope() -> None:
    flat = [(turn / 100, 80.0 + turn % 3) for turn in range(100)]
    leak = [(turn / 100, 80.0 + turn % 3 + turn * 0.2) for turn in range(100)]
    assert abs(slope(flat)) < GROWTH_MIB < slope(leak)
