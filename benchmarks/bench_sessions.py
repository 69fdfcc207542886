"""How many durable turns a second do many sessions make together, and in how much memory?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .agent import Checking, Watcher, runtime
from .harness import ANSWER, USER, Digest, main, memory_mb, peak_mb, scratch, size_of, sync_ms


def many(
    *,
    sessions: int,
    turns: int = 3,
    streamed: bool = False,
    watched: str = "all",
    threads: int | None = None,
    in_memory: bool = False,
) -> dict[str, Any]:
    """sessions at once, turns each; see `bench_turn.durable` for the rest. in_memory: nothing is written anywhere."""
    return asyncio.run(_many(sessions, turns, streamed, watched, threads, in_memory))


async def _many(
    sessions: int, turns: int, streamed: bool, watched: str, threads: int | None, in_memory: bool
) -> dict[str, Any]:
    digest, model, watcher = Digest(), Checking(streamed=streamed), Watcher()
    with scratch() as folder:
        synced_ms = sync_ms(folder)
        where = {"persistence": "memory://"} if in_memory else {}
        async with runtime(folder, model, threads=threads, **where) as running:
            if watched == "all":
                running.on_any(watcher)
            elif watched == "stored":
                from reenact.events.codec import TYPES

                running.on(list(TYPES), watcher)
            before_mb = memory_mb()
            bots = [
                await running.image(model="scripted:bench", instructions="You are helpful.") for _ in range(sessions)
            ]
            told, position = watcher.told, running.log.position

            async def talk(bot: Any) -> None:
                for _ in range(turns):
                    result = await bot.send(USER)
                    assert result.status == "succeeded" and result.text == ANSWER and result.steps == 2, result

            cpu, began = time.process_time(), time.perf_counter()
            await asyncio.gather(*map(talk, bots))
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            told, written = watcher.told - told, running.log.position - position
            for bot in bots[:: max(1, sessions // 20)]:
                verdict = await running.replay(bot.session_id)
                assert verdict.identical, verdict
                digest.add(verdict.events)
        digest.add(sessions, turns, written, model.calls, model.items_seen)
        disk = size_of(folder)
    count = sessions * turns
    return {
        "sessions": sessions,
        "turns": count,
        "turns_s": count / took,
        "cpu_ms_turn": cpu / count * 1e3,
        "events_turn": written / count,
        "told_turn": told / count,
        "bytes_turn": disk / count,
        "idle_mb": before_mb,
        "peak_mb": peak_mb(),
        "sync_ms": synced_ms,
        "digest": str(digest),
    }


CASES = {"many": many}

if __name__ == "__main__":
    main(CASES)
