"""Logs for fault tests: a file in which everything happened that can, and the events of one without a runtime."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.model import ModelRequest


@tool(effect="read")
def look(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 21 degrees"


@tool(effect="idempotent")
def book(city: str) -> str:
    """Book a room."""
    return f"booked in {city}"


@tool
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


TOOLS = (look, book, pay)
THREE_CALLS: list[Any] = [
    {
        "tool_calls": [
            {"name": "look", "input": {"city": "Paris"}},
            {"name": "book", "input": {"city": "Rome"}},
            {"name": "pay", "input": {"amount": 42}},
        ]
    },
    {"text": "All done."},
]


def three_calls(request: ModelRequest, seen: Any = None) -> Any:
    """One tool of each class for every message, then a text."""
    return THREE_CALLS[1] if type(request.items[-1]).__name__ == "ResultItem" else THREE_CALLS[0]


def busy_log(path: Path, *, turns: int = 3) -> None:
    """A log in which two sessions called tools of each class, keys were used, and one call was left owed."""

    async def main() -> None:
        models = Models({"scripted": Scripted(three_calls), "openai": _Silent()})
        agent = {"model": "scripted:any"}
        async with Runtime(f"sqlite:///{path}", tools=TOOLS, models=models, default_agent=agent, threads=2) as runtime:
            for name in ("one", "two"):
                bot = await runtime.image(name)
                for turn in range(turns):
                    assert (await bot.send(f"go {turn}", key=f"{name}-{turn}")).text == "All done."
            reached = asyncio.Event()
            runtime.on("model_called", lambda event: reached.set())
            bot = await runtime.image("three", model="openai:silent")
            await bot.send("never answered").run()
            await reached.wait()

    asyncio.run(asyncio.wait_for(main(), 30))


class _Silent:
    """A model that never answers."""

    async def stream(self, request: ModelRequest) -> Any:
        await asyncio.Event().wait()
        yield None

    async def aclose(self) -> None:
        pass


def settle(path: Path) -> None:
    """Everything into the one file, so that it may be copied and damaged."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
