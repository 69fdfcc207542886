"""How many events a second does DuckDB take over from a log in its file, from the first event to the newest?

Reading the file, deciding which rows follow from an event, and writing them, in transactions of 20,000 events.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from reenact.projections.duck import DuckProjection

from .agent import Checking, runtime
from .harness import USER, Digest, main, scratch


def caught_up(*, turns: int, sessions: int = 100) -> dict[str, Any]:
    """A log of so many turns in all, made by sessions side by side; its tables are laid out three times."""
    return asyncio.run(_caught_up(turns, sessions))


async def _caught_up(turns: int, sessions: int) -> dict[str, Any]:
    digest = Digest()
    with scratch() as folder:
        async with runtime(folder, Checking()) as running:
            bots = [await running.image(model="scripted:bench") for _ in range(sessions)]

            async def talk(bot: Any) -> None:
                for _ in range(max(1, turns // sessions)):
                    await bot.send(USER)

            await asyncio.gather(*map(talk, bots))
            events, best = running.log.position, float("inf")
            for _ in range(3):
                with DuckProjection() as tables:
                    began = time.perf_counter()
                    assert tables.catch_up(running.log) == events
                    best = min(best, time.perf_counter() - began)
                    found = tables.sql("SELECT count(*), count(DISTINCT session_id) FROM events")
            digest.add(events, found.rows)
    return {"events": events, "events_s": events / best, "digest": str(digest)}


CASES = {"caught_up": caught_up}

if __name__ == "__main__":
    main(CASES)
