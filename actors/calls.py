"""Whether calls were made and ended as they may be, told by the events alone: no decider has a say here.

Of a session: a model's call is of the model in force and ends once; a tool's starts before it ends, and none is started
again that may not be. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..events.agent import (
    AgentConfigured,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ToolRelaunched,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
)
from ..events.message import Recorded
from ..events.policy import ModelDenied
from ..events.session import JobStopping

# Which command may have a call looked at, to be started again, by its class. Reads and idempotent calls any may.
_AGAIN = {"unsafe": ("resolve_tool",), "probeable": ("resolve_tool", "prove_tool")}


class Calls:
    """Of one session. `see` takes its events in order."""

    def __init__(self) -> None:
        self._models: dict[str, int] = {}  # the attempt under way, 0 when the call is over
        self._failed: set[tuple[str, int]] = set()
        self._tools: dict[str, _Tool] = {}  # the open ones
        self._last = 0
        self._wants: tuple[str, tuple[str, ...]] | None = None
        self._model = ""  # in force
        self._stopping = False

    def see(self, recorded: Recorded) -> Iterator[str]:
        """What is wrong with this event, after those before it."""
        event = recorded.data
        if isinstance(event, AgentConfigured):
            wants = event.definition.model, event.definition.fallbacks
            if wants != self._wants:
                self._wants, self._model = wants, wants[0]
        elif isinstance(event, ModelSelected):
            self._model = event.model
        elif isinstance(event, ModelCalled):
            if self._wants is not None and event.model != self._model:
                yield f"{event.call} asks {event.model}, and {self._model} is what was selected"
            if self._models.get(event.call) == 0:
                yield f"{event.call} is called again after its end"
            self._models[event.call] = event.attempt
        elif isinstance(event, ModelAnswered):
            if not self._models.get(event.call):
                yield f"{event.call} is answered, and was not under way"
            self._models[event.call] = 0
        elif isinstance(event, ModelFailed):
            if self._models.get(event.call) != event.attempt or (event.call, event.attempt) in self._failed:
                yield f"attempt {event.attempt} of {event.call} failed, and was not under way"
            self._failed.add((event.call, event.attempt))
            if event.retry_in_ms is None:
                self._models[event.call] = 0
        elif isinstance(event, ModelDenied):
            self._models.pop(event.call, None)  # its next attempt was not made; a later turn may have the same number
        elif isinstance(event, ToolRequested):
            if event.tool in self._tools or not self._is_new(event.tool):
                yield f"{event.tool} is asked for twice"
            self._tools[event.tool] = _Tool(event)
        elif isinstance(event, ToolRelaunched):
            yield from self._relaunched(event, recorded.head.asked)
        elif isinstance(event, ToolStarted):
            yield from self._started(event, recorded.head.asked)
        elif isinstance(event, ToolSettled):
            yield from self._settled(event)
        elif isinstance(event, JobStopping):
            self._stopping = True
        elif isinstance(event, TurnCompleted):
            self._stopping = False
            if self._tools:
                yield f"the turn ended, and {', '.join(self._tools)} did not"

    def _is_new(self, tool: str) -> bool:
        """Calls are numbered in the order in which they are asked for, so no closed one need be remembered."""
        number = int(tool[1:]) if tool[1:].isdecimal() else 0
        new, self._last = number > self._last, max(number, self._last)
        return new

    def _relaunched(self, event: ToolRelaunched, asked: str) -> Iterator[str]:
        tool = self._tools.get(event.tool)
        if tool is None or not tool.attempts:
            yield f"{event.tool} is to be started again, and was not under way"
            return
        effect = tool.request.effect
        if asked not in _AGAIN.get(effect, (asked,)):
            yield f"{event.tool}, which is {effect}, is started again by {asked}"
        tool.relaunched = True

    def _started(self, event: ToolStarted, asked: str) -> Iterator[str]:
        tool = self._tools.get(event.tool)
        if tool is None:
            yield f"{event.tool} is started, and is not open"
            return
        if event.attempt != tool.attempts + 1:
            yield f"attempt {event.attempt} of {event.tool} follows attempt {tool.attempts}"
        if tool.attempts and not (tool.relaunched and asked == "start_tool"):
            yield f"{event.tool} is started again by {asked}, and was not looked at"
        if tool.attempts and event.arguments != tool.arguments:
            yield f"{event.tool} is started again with other arguments"
        tool.attempts, tool.arguments, tool.relaunched = event.attempt, event.arguments, False

    def _settled(self, event: ToolSettled) -> Iterator[str]:
        tool = self._tools.pop(event.tool, None)
        if tool is None:
            yield f"{event.tool} is settled, and is not open"
        elif event.outcome == "skipped" and tool.attempts == 1 and self._stopping:
            pass  # its first step was still to come
        elif tool.attempts and event.outcome in ("skipped", "denied"):
            yield f"{event.tool} was started, and is settled as {event.outcome}"
        elif not tool.attempts and event.outcome not in ("skipped", "denied") and tool.request.problem is None:
            yield f"{event.tool} is settled as {event.outcome}, and was never started"


class _Tool:
    __slots__ = ("arguments", "attempts", "relaunched", "request")

    def __init__(self, request: ToolRequested) -> None:
        self.request = request
        self.attempts = 0
        self.arguments = ""
        self.relaunched = False
