"""The life of one stream: load, decide, append, evolve, tell. No threads, no clock, no library.

A cell prepares a batch from a command and takes its new state over only when the log says that the batch is stored.
What was refused leaves nothing behind; what moved under it is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from ..events import codec
from ..events.errors import Corrupt, NewerFormat
from ..events.failpoint import failpoint
from ..events.log import Batch, Log, Stored
from ..events.message import Asked, Context, Effect, Head, Recorded, Unknown
from . import decider
from .container import CONTAINER
from .conversation import CONVERSATION
from .decider import Decision, Noun
from .image import IMAGE
from .ledger import LEDGER
from .windows import COOLDOWN

NOUNS = (CONVERSATION, IMAGE, CONTAINER, LEDGER, COOLDOWN)

_NO_CONTEXT = Context()


class Prepared(Struct, frozen=True, gc=False):
    """A batch on its way to the log, and what the stream becomes when it is there."""

    batch: Batch
    decision: Decision
    owed: tuple[Effect, ...]


def noun_of(stream: str) -> Noun:
    """The noun that lives in a stream, by the stream's prefix. Raises KeyError for a name of no noun."""
    for noun in NOUNS:
        if stream.startswith(noun.prefix):
            return noun
    raise KeyError(stream)


class Cell:
    """One stream, awake. `version`, `states` and `chain` are those of the newest stored batch.

    scope: the tenant it was begun for, and belongs to from then on; None while there is nothing in it.
    """

    __slots__ = ("_context", "_unknown", "chain", "noun", "scope", "states", "stream", "version")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.noun = noun_of(stream)
        self._reset()

    def _reset(self) -> None:
        self.states = self.noun.initial
        self.version = 0
        self.chain = b""
        self.scope: str | None = None
        self._context = _NO_CONTEXT
        self._unknown: str | None = None

    def load(self, log: Log) -> list[Recorded]:
        """Forget everything and read the stream; what it has so far is given back."""
        self._reset()
        return self.catch_up(log)

    def catch_up(self, log: Log) -> list[Recorded]:
        """Take over what was stored since, and give it back."""
        return [recorded for stored in log.read(self.stream, after=self.version) for recorded in self.take(stored)]

    def take(self, stored: Stored) -> list[Recorded]:
        """Take over one stored batch that was decided elsewhere, or by an earlier life of the stream.

        Raises `Corrupt` when its bytes mean nothing, with nothing taken over but whose it is.
        """
        if self.scope is None:
            self._belongs(stored.batch.head.context.scope)
        try:
            events = codec.unpack(stored)
        except Corrupt:
            raise
        except Exception as error:
            at = f"{self.stream}, version {stored.batch.version + 1}"
            raise Corrupt(f"{at}: what is stored cannot be read: {type(error).__name__}: {error}") from error
        states = self.states
        for recorded in events:
            if isinstance(recorded.data, Unknown):
                self._unknown = recorded.data.name
            states = decider.evolve(self.noun, states, recorded.data, recorded.stamp)
        self.states = states
        self.version = stored.batch.last
        self.chain = stored.batch.head.chain
        return events

    def _belongs(self, scope: str) -> None:
        # Most are of the one scope: not another text of its name for each.
        self.scope = _NO_CONTEXT.scope if scope == _NO_CONTEXT.scope else scope

    def hidden_from(self, scope: str | None) -> bool:
        """Whether a scope must not know that this stream is there. None: of nobody, that is the runtime's own work."""
        return scope is not None and self.scope is not None and scope != self.scope

    def prepare(self, asked: Asked, log: Log) -> Prepared | None:
        """Decide the command. None when there is nothing to do. Raises `Refused` and what else a decider raises."""
        if self._unknown is not None:
            raise NewerFormat(f"{self.stream} holds events of type {self._unknown!r}, which a newer release wrote.")
        failpoint("cell.decide")
        decision = decider.decide(
            self.noun,
            self.states,
            asked.command,
            version=self.version,
            at=asked.at,
            epoch=log.epoch,
            principal=asked.principal,
        )
        if not decision.events:
            return None
        owed = decider.owed(self.noun, decision.states)
        states = decision.states
        head = Head(
            id=asked.id,
            at=asked.at,
            asked=asked.command.type,
            cause=asked.cause,
            correlation=asked.correlation or asked.id,
            trace=asked.trace,
            job=getattr(asked.command, "job_id", None) or self.noun.job(self.states) or self.noun.job(states),
            context=self._ids(states, asked),
            owes=tuple(effect.id for effect in owed),
            writer=log.writer,
        )
        force_setattr(head, "chain", codec.chain(self.chain, head, decision.digests))  # nobody else has it yet
        failpoint("cell.decided")
        return Prepared(Batch(self.stream, self.version, head, decision.rows), decision, owed)

    def _ids(self, states: tuple[Any, ...], asked: Asked) -> Context:
        scope = asked.scope if self.scope is None else self.scope
        context = self.noun.context(states, Context(scope=scope, principal=asked.principal))
        if context == self._context:
            return self._context
        self._context = context
        return context

    def accept(self, prepared: Prepared, stored: Stored) -> list[Recorded]:
        """The prepared batch is stored: take its states over and give its events in their envelope."""
        batch, decision = prepared.batch, prepared.decision
        self.states = decision.states
        self.version = batch.last
        self.chain = batch.head.chain
        if self.scope is None:
            self._belongs(batch.head.context.scope)
        if not prepared.owed:
            self._context = _NO_CONTEXT  # nothing comes next by itself, and a stream at rest keeps what it must
        failpoint("cell.accepted")
        return _envelop(decision, stored)

    @property
    def owed(self) -> tuple[Effect, ...]:
        """What the world still has to do. Nothing, where a newer release may have settled it in words of its own."""
        if self._unknown is not None:
            return ()
        return decider.owed(self.noun, self.states)


def _envelop(decision: Decision, stored: Stored) -> list[Recorded]:
    """The events of a decision as they lie in the log, without decoding them again."""
    batch = stored.batch
    head, stream, epoch, position, version = batch.head, batch.stream, stored.epoch, stored.position, batch.version + 1
    return [
        Recorded(position + part, stream, version + part, part, epoch, event, head, digest, len(row.data), row.key)
        for part, (event, row, digest) in enumerate(zip(decision.events, decision.rows, decision.digests, strict=True))
    ]


def fold(noun: Noun, events: Sequence[Recorded]) -> tuple[Any, ...]:
    """The states after these events of one stream, from its start."""
    states = noun.initial
    for recorded in events:
        states = decider.evolve(noun, states, recorded.data, recorded.stamp)
    return states


__all__ = ["NOUNS", "Cell", "Prepared", "fold", "noun_of"]
