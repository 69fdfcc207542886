"""The shape of a decider, and how several of them share one stream. Pure: everything is decided from the arguments.

decide(state, message) -> events   what follows from a command, or from an event that another decider of the stream gave
evolve(state, event, stamp) -> state   what the event means; it cannot fail, and ignores what it does not know
owed(state) -> effects   what the world still has to do; the same after a crash as before it
recall(asked, events) -> command   the command that the batch came from: deciding it again gives the same batch
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from ..events import codec
from ..events.errors import ReenactError
from ..events.log import Row
from ..events.message import Command, Context, Effect, Event, Recorded, Stamp

DECISIONS_MAX = 1000
"""Most events that may follow from those a command led to at once. A stream that decides more is going in circles."""


class Decider(Struct, frozen=True):
    """One noun's state machine: where it starts, and its four functions."""

    name: str
    initial: Any
    decide: Callable[[Any, Command | Event], Sequence[Event]]
    evolve: Callable[[Any, Event, Stamp], Any]
    owed: Callable[[Any], Sequence[Effect]]
    recall: Callable[[str, Sequence[Event]], Command | None]


class Noun(Struct, frozen=True):
    """What lives in streams of one kind: the deciders that share it, and the context and job their states speak of."""

    prefix: str
    deciders: tuple[Decider, ...]
    context: Callable[[tuple[Any, ...], Context], Context]
    job: Callable[[tuple[Any, ...]], str | None]

    @property
    def initial(self) -> tuple[Any, ...]:
        return tuple(decider.initial for decider in self.deciders)


class Decision(Struct, frozen=True, gc=False):
    """What a command led to: events with their rows and digests, and the states after them."""

    events: tuple[Event, ...]
    rows: tuple[Row, ...]
    digests: tuple[bytes, ...]
    states: tuple[Any, ...]


class Circling(ReenactError):
    """One command led to more events than a command may: the deciders of the stream answer each other for ever."""

    code = "circling"


def decide(
    noun: Noun,
    states: tuple[Any, ...],
    command: Command,
    *,
    version: int,
    at: int,
    epoch: int,
    principal: str = "",
    stored: Sequence[Recorded] = (),
) -> Decision:
    """Show the command to every decider, then every event to every decider, in order, until nothing new is decided.

    Each event is encoded and evolved before anyone decides upon it. Raises what a decider raises, with nothing changed.
    principal: who asks. stored: what the log has of it already; an event that is there is evolved by the digest of the
    bytes that lie there, which an older release may have written.
    """
    deciders = noun.deciders
    current = list(states)
    events: list[Event] = []
    for index, decider in enumerate(deciders):
        events.extend(decider.decide(states[index], command))
    most = len(events) + DECISIONS_MAX
    rows: list[Row] = []
    digests: list[bytes] = []
    for place, event in enumerate(events):  # which grows while we walk it
        version += 1
        row = codec.row(event)
        there = place < len(stored) and stored[place].data == event
        digest = stored[place].digest if there else codec.row_digest(row)
        stamp = Stamp(version, at, epoch, digest, principal)
        rows.append(row)
        digests.append(digest)
        for index, decider in enumerate(deciders):
            current[index] = decider.evolve(current[index], event, stamp)
        for index, decider in enumerate(deciders):
            more = decider.decide(current[index], event)
            if more:
                events.extend(more)
        if place >= most:
            raise Circling(f"{command.type} led to more than {most} events.")
    return Decision(tuple(events), tuple(rows), tuple(digests), tuple(current))


def evolve(noun: Noun, states: tuple[Any, ...], event: Event, stamp: Stamp) -> tuple[Any, ...]:
    """The states after an event that is in the log."""
    return tuple(decider.evolve(state, event, stamp) for decider, state in zip(noun.deciders, states, strict=True))


def owed(noun: Noun, states: tuple[Any, ...]) -> tuple[Effect, ...]:
    """Everything the deciders of a stream owe, in their order."""
    effects: list[Effect] = []
    for decider, state in zip(noun.deciders, states, strict=True):
        effects.extend(decider.owed(state))
    return tuple(effects)


def recall(noun: Noun, asked: str, events: Sequence[Event]) -> Command | None:
    """The command that a batch came from, or None when no decider knows it."""
    for decider in noun.deciders:
        command = decider.recall(asked, events)
        if command is not None:
            return command
    return None
