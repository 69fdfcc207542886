"""How long does a durable turn take, alone on the machine, and does it grow with the conversation?

One session; a turn is user -> model -> tool -> model -> answer, every step committed with a sync before the next.
Through the public `send()`: actors, three layers of policy, one watcher of everything, history rendered and checked.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from reenact.flow import loop_commits

from .agent import BUDGET, EACH, LAYERS, MONEY, Checking, Watcher, runtime
from .harness import ANSWER, USER, Digest, main, peak_mb, scratch, size_of, sync_ms, turns


def durable(
    *, turns: int, streamed: bool = False, watched: str = "all", governed: bool = True, limited: bool = False
) -> dict[str, Any]:
    """turns: how many. streamed: the model answers in words. watched: all (of the bus), stored (events only), none.

    governed: under three layers of policy that let everything pass; False: under none. limited: under budgets of the
    scope and of each run that are not reached.
    """
    return asyncio.run(_durable(turns, streamed, watched, governed, limited))


async def _durable(count: int, streamed: bool, watched: str, governed: bool, limited: bool) -> dict[str, Any]:
    took, digest = [], Digest()
    model, watcher = Checking(streamed=streamed), Watcher()
    with scratch() as folder:
        synced_ms = sync_ms(folder)
        policy, budget = LAYERS if governed else None, BUDGET if limited else None
        async with runtime(folder, model, policy=policy, budget=budget) as running:
            if watched == "all":
                running.on_any(watcher)
            elif watched == "stored":
                from reenact.events.codec import TYPES

                running.on(list(TYPES), watcher)
            bot = await running.image(
                "bench", model="scripted:bench", instructions="You are helpful.", budget=EACH if limited else None
            )
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
        shown = [event.type for event in events if event.type not in MONEY]
        digest.add(len(shown), shown, model.calls, model.items_seen)
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


def counted(*, turns: int, governed: bool = True, limited: bool = False) -> dict[str, Any]:
    """The same turns and nothing else, every commit made by the loop, however slow the disk or the processor: what is
    counted of it in instructions is the same every time."""
    slow_s, loop_commits.SLOW_S = loop_commits.SLOW_S, float("inf")
    try:
        return asyncio.run(_counted(turns, governed, limited))
    finally:
        loop_commits.SLOW_S = slow_s


async def _counted(count: int, governed: bool, limited: bool) -> dict[str, Any]:
    digest = Digest()
    with scratch() as folder:
        policy, budget = LAYERS if governed else None, BUDGET if limited else None
        async with runtime(folder, Checking(), policy=policy, budget=budget) as running:
            running.on_any(Watcher())
            bot = await running.image(
                "bench", model="scripted:bench", instructions="You are helpful.", budget=EACH if limited else None
            )
            for _ in range(count):
                result = await bot.send(USER)
                digest.add(result.text, result.steps)
    return {"turns": count, "digest": str(digest)}


CASES = {"durable": durable, "counted": counted}

if __name__ == "__main__":
    main(CASES)
