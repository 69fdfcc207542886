"""Runtimes for tests: on a log in memory, with a scripted model, and what they told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from reenact import tool
from reenact.adapters.models import Models, Retries, RetryPolicy
from reenact.adapters.models.scripted import Scripted
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.message import BusEvent
from reenact.run import Run
from reenact.runtime import Runtime

T = TypeVar("T")

HELLO = [{"text": "Hello there."}]
CALL = [{"tool_calls": [{"name": "weather", "input": {"city": "Paris"}}]}, {"text": "It is 21 degrees."}]


@tool(effect="read")
def weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 21 degrees"


def runtime(
    steps: Any = HELLO,
    *,
    store: MemoryStore | None = None,
    repeat: bool = True,
    models: Models | None = None,
    **options: Any,
) -> Runtime:
    """A runtime whose only model is a script under the name `scripted:any`; retries wait for a millisecond."""
    models = models or Models({"scripted": Scripted(steps, repeat=repeat)})
    policy = RetryPolicy(attempts=3, wait_initial_s=0.001, wait_max_s=0.001)
    options.setdefault("default_agent", {"model": "scripted:any"})
    return Runtime(MemoryLog(store), models=models, retries=Retries(policy), **options)


def run(work: Callable[[Runtime], Awaitable[T]], *args: Any, **options: Any) -> T:
    """Open a runtime, have `work` done in it, close it; at most 20 seconds."""

    async def main() -> T:
        async with runtime(*args, **options) as opened:
            return await work(opened)

    return asyncio.run(asyncio.wait_for(main(), 20))


async def types_of(run: Run) -> list[str]:
    """The types of all that a run tells."""
    return [event.type async for event in run]


class Heard:
    """What a bus told, in order."""

    def __init__(self, of: Runtime) -> None:
        self.events: list[BusEvent] = []
        self._bus = of.bus
        of.on_any(self.events.append)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def of(self, *types: str) -> list[BusEvent]:
        return [event for event in self.events if event.type in types]

    async def until(self, kind: str, count: int = 1) -> BusEvent:
        """Wait until so many events of a type were told."""
        heard = self.of(kind)
        if len(heard) < count:
            more = asyncio.Event()
            with self._bus.on(kind, lambda event: len(self.of(kind)) >= count and more.set(), priority=-1):
                await more.wait()
        return self.of(kind)[count - 1]


class Gate:
    """A model that says one word and then waits until it is opened; cancelling it works as with a real one."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts) or ["done"]
        self.calls = 0
        self.opened = asyncio.Event()

    def stream(self, request: Any) -> Any:
        return self._stream()

    async def _stream(self) -> Any:
        from reenact.events.content import Text, Usage
        from reenact.events.model import ModelAnswer
        from reenact.events.stream import MessageRef, MessageStart, TextBlockStart, TextDelta

        text = self.texts[min(self.calls, len(self.texts) - 1)]
        self.calls += 1
        yield MessageStart(message=MessageRef(id=f"msg_{self.calls}", model="gate"))
        yield TextBlockStart()
        yield TextDelta(text="partial ")
        await self.opened.wait()
        yield TextDelta(text=text)
        yield ModelAnswer(
            parts=(Text(text=f"partial {text}"),),
            stop_reason="end_turn",
            usage=Usage(input_tokens=3, output_tokens=2),
            model="gate",
        )
