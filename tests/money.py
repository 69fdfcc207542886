"""Money for tests: answers that are counted, a model that has a price, what a ledger was told of it all."""

from __future__ import annotations

from typing import Any

from reenact import tool
from reenact.actors.replay import replay
from reenact.actors.verify import verify
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events import codec
from reenact.events.log import MemoryLog


def counted(text: str = "Hello there.", tokens: int = 10, **step: Any) -> dict[str, Any]:
    return {"text": text, "usage": {"inputTokens": tokens, "outputTokens": 5}, **step}


DEAR = "anthropic:claude-sonnet-4-5"


def dear(*steps: Any) -> dict[str, Any]:
    """A script under the name of a model that has a price."""
    models = Models({"anthropic": Scripted(list(steps) or [counted()], repeat=True), "scripted": Scripted([counted()])})
    return {"models": models, "default_agent": {"model": DEAR, "params": {"maxTokens": 100}}}


@tool(effect="idempotent")
def look(n: int) -> str:
    """Look something up."""
    return f"saw {n}"


def ledger_of(log: MemoryLog) -> list[Any]:
    return [recorded.data for stored in log.read("ledger-default") for recorded in codec.unpack(stored)]


def everything_replays(log: MemoryLog) -> None:
    for stream in log.streams():
        verdict = replay(stream, log.read(stream))
        assert verdict.identical, f"{stream}: {verdict.summary}"
    report = verify(log)
    assert report.sound, report.summary
