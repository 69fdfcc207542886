"""Providers whose models fail as they are told to, and what a runtime then asked and selected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from reenact.adapters.models import Models
from reenact.events.agent import ModelCalled, ModelSelected
from reenact.events.content import Failure, Text, Usage
from reenact.events.log import MemoryStore
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import TextBlockStart, TextDelta
from reenact.runtime import Runtime
from tests.runtimes import runtime

A, B, C = "scripted:a", "scripted:b", "other:c"


class Provider:
    """A provider whose models say their name, or fail as they are told to. `asked`: (model, key) of every request.

    fails: model or key or (model, key) -> the code it fails with, a list of codes for one after the other.
    """

    def __init__(self, **fails: Any) -> None:
        self.fails: dict[Any, Any] = dict(fails)
        self.asked: list[tuple[str, str | None]] = []
        self.seen: list[Any] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        key = request.credentials.reveal() or None
        self.asked.append((request.model, key))
        self.seen.append(list(request.items))
        code = None
        for name in ((request.model, key), request.model, key):
            wanted = self.fails.get(name)
            code = wanted.pop(0) if isinstance(wanted, list) and wanted else wanted or None
            if code:
                break
        if code:
            yield TextBlockStart()
            yield TextDelta(text=f"half of {request.model}")
            failure = Failure(code=code, message=f"{code}!", retryable=code in ("overloaded", "timeout"), status=500)
            raise ModelFailure(failure, partial=(Text(text=f"half of {request.model}"),))
        yield ModelAnswer(
            parts=(Text(text=f"I am {request.model}."),),
            stop_reason="end_turn",
            usage=Usage(input_tokens=1, output_tokens=1),
            model=request.model,
        )

    @property
    def models(self) -> list[str]:
        return [model for model, _ in self.asked]


def opened(provider: Provider, *, store: MemoryStore | None = None, **options: Any) -> Runtime:
    options.setdefault("default_agent", {"model": A, "fallbacks": [B, C]})
    return runtime(store=store, models=Models({"scripted": provider, "other": provider}), **options)


def play(work: Callable[[Runtime], Any], provider: Provider, **options: Any) -> Any:
    async def main() -> Any:
        async with opened(provider, **options) as open_now:
            return await work(open_now)

    return asyncio.run(asyncio.wait_for(main(), 20))


async def identical(of: Runtime, session_id: str) -> None:
    verdict = await of.replay(session_id)
    assert verdict.identical, verdict.summary


def selections(events: Any) -> list[tuple[str, str, str | None]]:
    """Those after which another is asked than would have been."""
    return [
        (event.data.model, event.data.reason, event.data.because)
        for event in events
        if isinstance(event.data, ModelSelected) and not event.data.noted
    ]


def notes(events: Any) -> list[tuple[str, str, str | None]]:
    """What was asked as it would have been, and is said to be selected: model, reason, key."""
    return [
        (event.data.model, event.data.reason, event.data.key)
        for event in events
        if isinstance(event.data, ModelSelected) and event.data.noted
    ]


def called(events: Any) -> list[str]:
    return [event.data.model for event in events if isinstance(event.data, ModelCalled)]
