"""A model that obeys whatever it is told, and tools that say that they ran: for rules to stand in their way."""

from __future__ import annotations

from typing import Any

from reenact import tool
from reenact.adapters.models import Models
from reenact.events.content import ResultItem, Text, ToolCall
from reenact.events.log import MemoryStore
from reenact.events.model import ModelAnswer, ModelRequest
from reenact.events.policy import Policy, ToolPolicy
from reenact.image import Image
from reenact.runtime import Runtime
from tests.runtimes import runtime

RAN: list[str] = []
"""What ran, in order. Whoever uses it clears it before each test."""


def named(name: str, effect: str = "read") -> Any:
    """A tool that does nothing but say that it ran."""

    @tool(name=name, effect=effect)
    def act(n: int = 0) -> str:
        """Act."""
        RAN.append(name)
        return f"{name} {n}"

    return act


NAMES = ("read", "write", "apply_patch", "exec", "web_search", "refund", "pay_bill")
TOOLS = [named(name) for name in NAMES]


def rule(*patterns: str, **fields: Any) -> ToolPolicy:
    return ToolPolicy(tool_patterns=patterns, **fields)


def policy(*rules: Any, **fields: Any) -> Policy:
    return Policy(rules=rules, **fields)


def script(*names: str) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "input": {"n": number}} for number, name in enumerate(names)]}


class Obedient:
    """A model that calls every tool that it ever heard of, offered or not, whenever it is asked; then it is content.

    It remembers what it was offered.
    """

    def __init__(self, *names: str, rounds: int = 1) -> None:
        self.names = names
        self.rounds = rounds
        self.offered: list[list[str]] = []
        self.told: list[str] = []

    def stream(self, request: ModelRequest) -> Any:
        return self._stream(request)

    async def _stream(self, request: ModelRequest) -> Any:
        self.offered.append([spec.name for spec in request.tools])
        last = request.items[-1]
        if isinstance(last, ResultItem):
            self.told += [str(result.output) for result in last.results]
        number = len(self.offered)
        if number % (self.rounds + 1) == 0:
            yield ModelAnswer(parts=(Text(text="done"),), stop_reason="end_turn", model="obedient")
            return
        wanted = [*self.names]
        parts = tuple(ToolCall(id=f"c{number}_{n}", name=name, input={"n": n}) for n, name in enumerate(wanted))
        yield ModelAnswer(parts=parts, stop_reason="tool_use", model="obedient")


def obeying(model: Obedient, store: MemoryStore | None = None, **options: Any) -> Runtime:
    return runtime(models=Models({"scripted": model}), store=store, tools=TOOLS, **options)


async def events(bot: Image, *kinds: type) -> list[Any]:
    return [recorded.data for recorded in await bot.events() if isinstance(recorded.data, kinds)]
