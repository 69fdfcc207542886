"""How many durable turns a second do many sessions make together, and in how much memory?"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

from reenact.actors.cell import noun_of
from reenact.actors.decider import recall
from reenact.actors.system import ActorSystem, Ask, Committed
from reenact.adapters.logs import open_log
from reenact.events import codec
from reenact.events.log import Batch, Transaction
from reenact.events.message import Asked, Head

from .agent import LAYERS, Checking, Watcher, runtime
from .harness import ANSWER, USER, Digest, main, memory_mb, peak_mb, scratch, size_of, sync_ms


def many(
    *,
    sessions: int,
    turns: int = 3,
    streamed: bool = False,
    watched: str = "all",
    threads: int | None = None,
    in_memory: bool = False,
    governed: bool = True,
) -> dict[str, Any]:
    """sessions at once, turns each; see `bench_turn.durable` for the rest. in_memory: nothing is written anywhere."""
    return asyncio.run(_many(sessions, turns, streamed, watched, threads, in_memory, governed))


async def _many(
    sessions: int, turns: int, streamed: bool, watched: str, threads: int | None, in_memory: bool, governed: bool
) -> dict[str, Any]:
    digest, model, watcher = Digest(), Checking(streamed=streamed), Watcher()
    with scratch() as folder:
        synced_ms = sync_ms(folder)
        where = {"persistence": "memory://"} if in_memory else {}
        async with runtime(folder, model, threads=threads, policy=LAYERS if governed else None, **where) as running:
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


def decided(*, sessions: int, turns: int = 3) -> dict[str, Any]:
    """The same turns with nobody told and nothing done: their commands, as a log has them, are decided and committed
    anew, by the actors and to a file as always. No event loop, no model, no tool, no watcher: no turn takes less."""
    with scratch() as folder:
        begun, commands = asyncio.run(_commands(folder, sessions, turns))
        log = open_log(f"sqlite:///{folder}/anew.db")
        for batch in begun:
            log.commit([Transaction((batch,))])
        left, over = sum(map(len, commands.values())), threading.Event()
        written = log.position

        def publish(group: list[Committed]) -> None:  # one commit after the other, each on whatever thread made it
            nonlocal left
            assert all(said.reply.error is None for said in group), group
            left -= sum(bool(said.events) for said in group)
            if not left:
                over.set()

        system = ActorSystem(log, publish)
        cpu, began = time.process_time(), time.perf_counter()
        for stream, all_asked in commands.items():
            for asked in all_asked:
                system.put(stream, Ask(asked))
        assert over.wait(60), f"{left} commands were never answered"
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        written = log.position - written
        system.close()
        log.close()
    count = sessions * turns
    return {
        "turns": count,
        "turns_s": count / took,
        "cpu_ms_turn": cpu / count * 1e3,
        "events_turn": written / count,
        "digest": str(written),
    }


async def _commands(folder: Path, sessions: int, turns: int) -> tuple[list[Batch], dict[str, list[Asked]]]:
    """What was there before the first turn, and the commands of all turns by stream."""
    commands: dict[str, list[Asked]] = {}
    async with runtime(folder, Checking(), persistence="memory://", policy=LAYERS) as running:
        bots = [await running.image(model="scripted:bench", instructions="You are helpful.") for _ in range(sessions)]
        position = running.log.position

        async def talk(bot: Any) -> None:
            for _ in range(turns):
                assert (await bot.send(USER)).text == ANSWER

        await asyncio.gather(*map(talk, bots))
        stored = running.log.read_all(limit=running.log.position)
    for each in stored:
        if each.position > position:
            batch = each.batch
            command = recall(noun_of(batch.stream), batch.head.asked, [one.data for one in codec.unpack(each)])
            assert command is not None, batch
            head = batch.head
            asked = Asked(
                id=head.id, at=head.at, command=command, cause=head.cause, correlation=head.correlation, **_by(head)
            )
            commands.setdefault(batch.stream, []).append(asked)
    return [each.batch for each in stored if each.position <= position], commands


def _by(head: Head) -> dict[str, str]:
    return {"scope": head.context.scope, "principal": head.context.principal}


CASES = {"many": many, "decided": decided}

if __name__ == "__main__":
    main(CASES)
