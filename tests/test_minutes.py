"""Limits of a minute over the real kernel: the last 60 seconds are the last 60 seconds."""

from __future__ import annotations

import pytest

from reenact.actors.clock import ManualClock
from reenact.events.log import MemoryLog, MemoryStore
from reenact.runtime import Runtime
from tests.money import counted, everything_replays
from tests.runtimes import run


@pytest.mark.parametrize("sessions", [1, 2, 5])
def test_after_a_minute_of_silence_as_many_calls_are_made_again(sessions: int) -> None:
    """Nobody asked the ledger meanwhile, so it hears late of what was made then."""
    store, clock = MemoryStore(), ManualClock()

    async def work(opened: Runtime) -> None:
        bots = [await opened.image(f"bot{n}") for n in range(sessions)]
        for minute in range(3):
            for n in range(5):
                result = await bots[(minute + n) % sessions].send("hi")
                assert result.status == "succeeded", (minute, n, result.failure)
            clock.move(s=61)
        [limit] = await opened.budget()
        assert (limit.used, limit.left) == (0, 5)

    run(work, [counted()], store=store, clock=clock, budget={"max_requests_per_minute": 5})
    everything_replays(MemoryLog(store))


def test_idle_sessions_hold_up_nobody_once_their_minute_is_over() -> None:
    store, clock = MemoryStore(), ManualClock()

    async def work(opened: Runtime) -> None:
        bots = [await opened.image(f"bot{n}") for n in range(8)]
        for bot in bots[:4]:
            assert (await bot.send("hi")).status == "succeeded"
        clock.move(s=30)
        for bot in bots[4:6]:
            assert (await bot.send("hi")).status == "succeeded"
        assert (await bots[6].send("hi")).status == "failed"
        clock.move(s=31)
        told = [(await bot.send("hi")).status for bot in (*bots[6:], *bots[:3])]
        assert told == ["succeeded"] * 4 + ["failed"], "two of half a minute ago count still"

    run(work, [counted()], store=store, clock=clock, budget={"max_requests_per_minute": 6})
    everything_replays(MemoryLog(store))
