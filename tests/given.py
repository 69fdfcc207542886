"""given(events).when(command).then(events): all the vocabulary a decider's test needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import pytest

from reenact.actors import decider
from reenact.actors.conversation import CONVERSATION
from reenact.actors.decider import Noun
from reenact.events import codec
from reenact.events.message import Command, Effect, Event, Stamp


class Given:
    """A stream with a past. `epoch` counts owners: `after_a_crash` brings the next one."""

    def __init__(self, noun: Noun, past: Sequence[Event | Command] = ()) -> None:
        self.noun = noun
        self.states: tuple[Any, ...] = noun.initial
        self.version = 0
        self.epoch = 1
        self.at = 1_000_000
        self.principal = "user"
        self._events: tuple[Event, ...] = ()
        self._refused: Exception | None = None
        self._looked = True
        for each in past:
            if isinstance(each, Command):
                self.when(each)
                assert self.error is None, self.error
            else:
                self._evolve(each)

    def _evolve(self, event: Event) -> None:
        self.version += 1
        stamp = Stamp(self.version, self.at, self.epoch, codec.row_digest(codec.row(event)), self.principal)
        self.states = decider.evolve(self.noun, self.states, event, stamp)

    @property
    def events(self) -> tuple[Event, ...]:
        """What followed the last command."""
        assert self._looked, self._refused
        return self._events

    @property
    def error(self) -> Exception | None:
        """Why the last command was refused. One that nobody looks at fails whatever comes next."""
        self._looked = True
        return self._refused

    def when(self, command: Command) -> Self:
        """Ask. What follows is in `events`, or why it was refused in `error`; deciding again must give the same."""
        assert self._looked, self._refused
        self._events, self._refused = (), None
        ask = {"version": self.version, "at": self.at, "epoch": self.epoch, "principal": self.principal}
        try:
            decision = decider.decide(self.noun, self.states, command, **ask)
        except Exception as error:
            self._refused, self._looked = error, False
            return self
        if decision.events:
            recalled = decider.recall(self.noun, command.type, decision.events)
            assert recalled is not None, f"nobody recalls {command.type} from {decision.events}"
            again = decider.decide(self.noun, self.states, recalled, **ask)
            assert again.rows == decision.rows, "what is recalled must be decided alike"
        self.states = decision.states
        self.version += len(decision.events)
        self._events = decision.events
        return self

    def after_a_crash(self) -> Self:
        """The owner is gone; the next one has read the stream."""
        assert self._looked, self._refused
        self.epoch += 1
        return self

    def then(self, *events: Event | type[Event]) -> Self:
        """Exactly these events, whole or by type."""
        assert self.error is None, self.error
        shown = [event if isinstance(want, Event) else type(event) for event, want in _pair(self.events, events)]
        assert shown == list(events)
        return self

    def then_nothing(self) -> Self:
        """It was already so."""
        return self.then()

    def then_refused(self, error: type[Exception], words: str = "") -> Self:
        """Refused by this error, with these words in it, and nothing changed."""
        assert isinstance(self.error, error), self.error or self.events
        assert words in str(self.error)
        return self

    @property
    def owed(self) -> tuple[Effect, ...]:
        assert self._looked, self._refused
        return decider.owed(self.noun, self.states)

    def owes(self, *effects: str) -> Self:
        """Exactly these effects are owed, by id."""
        assert [effect.id for effect in self.owed] == list(effects)
        return self


def _pair(got: Sequence[Event], wanted: Sequence[Any]) -> list[tuple[Event, Any]]:
    wanted = list(wanted) + [Event] * (len(got) - len(wanted))
    return list(zip(got, wanted, strict=False))


def given(*past: Event | Command, noun: Noun = CONVERSATION) -> Given:
    """A conversation, or the stream of another noun, in which this has happened."""
    return Given(noun, past)


__all__ = ["Given", "given", "pytest"]
