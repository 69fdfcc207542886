"""How many events a second are re-driven: decided again from their commands, and compared byte by byte with the log?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from reenact.actors.replay import replay

from .agent import Checking, runtime
from .harness import USER, Digest, main, scratch


def redriven(*, turns: int) -> dict[str, Any]:
    """One session of so many turns, re-driven; reading it from its file is measured apart."""
    return asyncio.run(_redriven(turns))


async def _redriven(turns: int) -> dict[str, Any]:
    digest = Digest()
    with scratch() as folder:
        async with runtime(folder, Checking()) as running:
            bot = await running.image("bench", model="scripted:bench", instructions="You are helpful.")
            for _ in range(turns):
                await bot.send(USER)
            stream = f"session-{bot.session_id}"
            began = time.perf_counter()
            stored = running.log.read(stream)
            read_s = time.perf_counter() - began
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        verdict = replay(stream, stored)
        best = min(best, time.perf_counter() - began)
        assert verdict.identical, verdict
    digest.add(verdict.events, verdict.batches, verdict.network_calls)
    return {
        "events": verdict.events,
        "events_s": verdict.events / best,
        "with_reading_s": verdict.events / (best + read_s),
        "digest": str(digest),
    }


CASES = {"redriven": redriven}

if __name__ == "__main__":
    main(CASES)
