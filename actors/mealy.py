"""The agent as a Mealy machine: what state it is in, and what moves it, by the names of the bus. Pure.

Everything that moves the state is in the table; whatever is not in it leaves the state as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

AgentState = Literal["idle", "thinking", "responding", "planning_tool", "awaiting_tool_result", "error"]

TRANSITIONS: dict[str, AgentState] = {
    "conversation_start": "thinking",
    "conversation_thinking": "thinking",
    "conversation_responding": "responding",
    "conversation_end": "idle",
    "conversation_interrupted": "idle",
    "tool_planned": "planning_tool",
    "tool_executing": "awaiting_tool_result",
    "tool_completed": "responding",
    "tool_failed": "responding",
    "error_occurred": "error",
}

OnChange = Callable[[AgentState, AgentState], object]


def step(state: AgentState, event_type: str) -> AgentState:
    """The state after an event of this type."""
    return TRANSITIONS.get(event_type, state)


def run(event_types: Iterable[str], state: AgentState = "idle") -> AgentState:
    """The state after these events, in order."""
    for event_type in event_types:
        state = step(state, event_type)
    return state


class Machine:
    """One agent's state, for whoever wants to be told when it changes.

    Listeners get (previous, current), only on a change; one that raises is left out of nothing and harms nobody.
    """

    def __init__(self) -> None:
        self.state: AgentState = "idle"
        self.failures = 0
        self._listeners: list[OnChange] = []

    def on_change(self, listener: OnChange) -> Callable[[], None]:
        """Be told of every change from now on. Returns what takes the listener off; calling it twice is fine."""
        self._listeners.append(listener)

        def off() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return off

    def feed(self, event_type: str) -> AgentState:
        """Take an event in, tell the listeners if it moved the state, and give the state."""
        self._move(step(self.state, event_type))
        return self.state

    def reset(self) -> None:
        """Back to idle, told if it was not; then the listeners are dropped."""
        self._move("idle")
        self._listeners.clear()

    def _move(self, state: AgentState) -> None:
        previous, self.state = self.state, state
        if previous == state:
            return
        for listener in tuple(self._listeners):
            try:
                listener(previous, state)
            except Exception:
                self.failures += 1
