"""llama-index-workflows: the conversation in the context's store; the whole context is written after each turn, so a
crash within a turn loses it."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from typing import Any

from workflows import Context, Workflow, step
from workflows.context import JsonSerializer
from workflows.events import Event, StartEvent, StopEvent

from benchmarks import harness
from benchmarks.harness import ANSWER, ARGUMENTS, OUTPUT, USER


class Asked(Event):
    args: dict[str, Any]


class Done(Event):
    output: str


class Turn(Workflow):
    @step
    async def ask(self, context: Context, event: StartEvent) -> Asked:
        messages = await context.store.get("messages", default=[])
        messages.append({"role": "user", "content": event.text})
        messages.append({"role": "assistant", "calls": [{"name": "weather", "args": ARGUMENTS}]})
        await context.store.set("messages", messages)
        return Asked(args=ARGUMENTS)

    @step
    async def weather(self, context: Context, event: Asked) -> Done:
        return Done(output=OUTPUT)

    @step
    async def tell(self, context: Context, event: Done) -> StopEvent:
        messages = await context.store.get("messages")
        messages.append({"role": "tool", "content": event.output})
        messages.append({"role": "assistant", "content": ANSWER})
        await context.store.set("messages", messages)
        return StopEvent(result=ANSWER)


def _open(folder: Any) -> sqlite3.Connection:
    db = sqlite3.connect(folder / "contexts.db")
    db.execute("CREATE TABLE contexts (session TEXT PRIMARY KEY, data TEXT)")
    db.commit()
    return db


def _save(db: sqlite3.Connection, session: str, context: Context) -> None:
    data = json.dumps(context.to_dict(serializer=JsonSerializer()))
    db.execute("INSERT OR REPLACE INTO contexts VALUES (?, ?)", (session, data))
    db.commit()


def durable(*, turns: int) -> dict[str, Any]:
    async def work() -> None:
        flow = Turn(timeout=None)
        context = Context(flow)
        for _ in range(turns):
            began = time.perf_counter()
            said = await flow.run(text=USER, ctx=context)
            _save(db, "s", context)
            took.append(time.perf_counter() - began)
            assert said == ANSWER
        assert len(await context.store.get("messages")) == 4 * turns

    logging.disable(logging.CRITICAL)
    took: list[float] = []
    with harness.scratch() as folder:
        db = _open(folder)
        asyncio.run(work())
        db.close()
        disk = harness.size_of(folder)
    return {**harness.turns(took), "bytes_turn": disk / turns, "peak_mb": harness.peak_mb()}


def many(*, sessions: int, turns: int = 3) -> dict[str, Any]:
    async def work() -> float:
        flow = Turn(timeout=None)

        async def talk(number: int) -> None:
            context = Context(flow)
            for _ in range(turns):
                assert await flow.run(text=USER, ctx=context) == ANSWER
                _save(db, str(number), context)

        began = time.perf_counter()
        await asyncio.gather(*map(talk, range(sessions)))
        return time.perf_counter() - began

    logging.disable(logging.CRITICAL)
    with harness.scratch() as folder:
        db = _open(folder)
        took = asyncio.run(work())
        db.close()
    return {"turns_s": sessions * turns / took, "peak_mb": harness.peak_mb()}


CASES = {"durable": durable, "many": many}

if __name__ == "__main__":
    harness.main(CASES)
