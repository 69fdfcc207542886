"""dbos: a workflow a turn, with a step for each model call and for the tool, in its SQLite system database.

It carries no conversation from turn to turn, so its turns cannot grow.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from dbos import DBOS

from benchmarks import harness
from benchmarks.harness import ANSWER, ARGUMENTS, OUTPUT, USER


@DBOS.step()
def ask(text: str) -> dict[str, Any]:
    return {"role": "assistant", "call": {"id": "c1", "name": "weather", "args": ARGUMENTS}}


@DBOS.step()
def weather(call: dict[str, Any]) -> str:
    return OUTPUT


@DBOS.step()
def tell(output: str) -> str:
    assert output == OUTPUT
    return ANSWER


@DBOS.workflow()
def turn(text: str) -> str:
    return tell(weather(ask(text)["call"]))


@DBOS.step()
async def ask_async(text: str) -> dict[str, Any]:
    return {"role": "assistant", "call": {"id": "c1", "name": "weather", "args": ARGUMENTS}}


@DBOS.step()
async def weather_async(call: dict[str, Any]) -> str:
    return OUTPUT


@DBOS.step()
async def tell_async(output: str) -> str:
    assert output == OUTPUT
    return ANSWER


@DBOS.workflow()
async def turn_async(text: str) -> str:
    return await tell_async(await weather_async((await ask_async(text))["call"]))


def _launch(folder: Path) -> None:
    url = f"sqlite:///{folder}/dbos.db"
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})
    DBOS.launch()


def durable(*, turns: int) -> dict[str, Any]:
    took = []
    with harness.scratch() as folder:
        _launch(folder)
        for _ in range(turns):
            began = time.perf_counter()
            said = turn(USER)
            took.append(time.perf_counter() - began)
            assert said == ANSWER
        DBOS.destroy()
        disk = harness.size_of(folder)
    return {**harness.turns(took), "bytes_turn": disk / turns, "peak_mb": harness.peak_mb()}


def many(*, sessions: int, turns: int = 3) -> dict[str, Any]:
    async def work() -> float:
        async def talk() -> None:
            for _ in range(turns):
                assert await turn_async(USER) == ANSWER

        began = time.perf_counter()
        await asyncio.gather(*(talk() for _ in range(sessions)))
        return time.perf_counter() - began

    with harness.scratch() as folder:
        _launch(folder)
        took = asyncio.run(work())
        DBOS.destroy()
    return {"turns_s": sessions * turns / took, "peak_mb": harness.peak_mb()}


CASES = {"durable": durable, "many": many}

if __name__ == "__main__":
    harness.main(CASES)
