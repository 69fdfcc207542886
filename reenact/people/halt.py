"""A halt: the job of a session goes on when a person has said something, and nothing of it goes on before.

It is read off what the session's deciders say and owe; nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from ..events.action import ExpireActionAt
from ..events.agent import RunTool, WakeAt
from ..events.message import Effect

_TIMES = (WakeAt, ExpireActionAt)
"""What is owed and is only a time that will come."""


class Halt(Struct, frozen=True):
    """job_id: the job that waits; others of its session wait behind it. call: what it waits for is about this one, None
    where it is about no call. action: the question that a person must answer, None where they must say what became of
    the call."""

    job_id: str
    call: str | None
    action: str | None


def halt_of(
    states: tuple[Any, ...],
    owed: Iterable[Effect],
    in_hand: Callable[[str], bool] = lambda action: False,
    awaited: Callable[[str], bool] = lambda action: True,
) -> Halt | None:
    """The halt of a conversation, None where it goes on by itself or has nothing to do.

    owed: what will be done of what it owes. awaited(action): whether the call that runs and has put this question waits
    for the answer by now; where nobody can tell it is taken to.
    in_hand(action): whether a question is being answered already, by a program or by whoever reads the run.
    """
    session = states[0]
    waits, running = session.waiting_for, session.running
    if waits is None or running is None or session.stopping is not None:
        return None
    if any(in_hand(action) for action, _, _ in session.asked):
        return None
    asking = {call for action, call, _ in session.asked if awaited(action)}
    if any(not isinstance(effect, _TIMES) and not _asks(effect, asking) for effect in owed):
        return None
    for action, call, _ in session.asked:
        if action == waits:
            return Halt(running.job_id, call or None, action)
    return Halt(running.job_id, waits, None)


def _asks(effect: Effect, asking: set[str]) -> bool:
    return isinstance(effect, RunTool) and effect.id in asking
