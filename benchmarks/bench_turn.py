"""How long does a durable turn take, alone on the machine, and does it grow with the conversation?

One session; a turn is user -> model -> tool -> model -> answer, every step committed with a sync before the next.
Through the public `send()`: actors, tool policy, one watcher of everything on, history rendered and checked.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .agent import LAYERS, Checking, Watcher, runtime
from .harness import ANSWER, USER, Digest, main, peak_mb, scratch, size_of, sync_ms, turns


def durable(*, turns: int, streamed: bool = False, watched: str = "all", governed: bool = False) -> dict[str, Any]:
    """turns: how many. streamed: the model answers in words. watched: all (of the bus), stored (events only), none.

    governed: under three layers of policy that let everything pass.
    """
    return asyncio.run(_durable(turns, streamed, watched, governed))


async def _durable(count: int, streamed: bool, watched: str, governed: bool) -> dict[str, Any]:
    took, digest = [], Digest()
    model, watcher = Checking(streamed=streamed), Watcher()
    with scratch() as folder:
        synced_ms = sync_ms(folder)
        async with runtime(folder, model, policy=LAYERS if governed else None) as running:
            if watched == "all":
                running.on_any(watcher)
            elif watched == "stored":
                from reenact.events.codec import TYPES

                running.on(list(TYPES), watcher)
            bot = await running.image("bench", model="scripted:bench", instructions="You are helpful.")
            cpu = time.process_time()
            for _ in range(count):
                began = time.perf_counter()
                result = await bot.send(USER)
                took.append(time.perf_counter() - began)
                assert result.status == "succeeded" and result.text == ANSWER and result.steps == 2, result
                digest.add(result.text, result.usage)
            cpu = time.process_time() - cpu
            events = await running.events(bot.session_id)
            assert (await running.replay(bot.session_id)).identical
        digest.add(len(events), [event.type for event in events], model.calls, model.items_seen)
        disk = size_of(folder)
    if watched != "none":
        assert watcher.stored >= len(events), watcher.stored
    return {
        **turns(took),
        "bytes_turn": disk / count,
        "disk": disk,
        "cpu_ms_turn": cpu / count * 1e3,
        "told_turn": watcher.told / count,
        "peak_mb": peak_mb(),
        "sync_ms": synced_ms,
        "digest": str(digest),
    }


CASES = {"durable": durable}

if __name__ == "__main__":
    main(CASES)
