"""Replay is re-driving: every batch is decided again from its command, and compared with what the log holds.

Nothing reaches outside: no model, no tool, no socket, no clock. What a decision read from elsewhere is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from ..events import codec
from ..events.log import Stored
from ..events.message import Erased, Recorded, Unknown
from . import decider
from .cell import noun_of


class Difference(Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a replay parts from the log: the first event that differs, what was recorded, and what was decided now.

    kind: `event`, `missing` (the log has more), `extra` (decided more), `owed` (same events, other effects owed),
    `refused` (the command is refused now), `unknown` (a type of a newer release), `no_command` (no command of this
    release leads to such a batch), `chain` (the stored bytes are not those that were appended), `unreadable` (they are,
    and mean nothing).
    """

    kind: str
    stream: str
    version: int
    position: int
    recorded: str | None = None
    decided: str | None = None


class Replay(Struct, frozen=True, kw_only=True, rename="camel"):
    """The verdict. events, batches: decided again; erased: those whose text is gone. network_calls: always 0 here."""

    identical: bool
    events: int
    batches: int = 0
    erased: int = 0
    network_calls: int = 0
    first_difference: Difference | None = None
    states: tuple[Any, ...] = ()

    @property
    def summary(self) -> str:
        """One line for a person."""
        if self.identical:
            gone = f", {self.erased} items erased" if self.erased else ""
            return f"identical: {self.events} events decided again, {self.network_calls} network calls{gone}"
        at = self.first_difference
        assert at is not None
        return f"differs at version {at.version} ({at.kind}): recorded {at.recorded}, decided {at.decided}"


def replay(
    stream: str, stored: Iterable[Stored], *, step: Callable[[list[Recorded], tuple[Any, ...]], object] | None = None
) -> Replay:
    """Re-drive one stream from its start. `step` hears each batch and the states after it, one by one."""
    noun = noun_of(stream)
    states, version, events, batches, erased = noun.initial, 0, 0, 0, 0
    chain = b""

    def differs(kind: str, at: Recorded | _Place, recorded: str | None, decided: str | None) -> Replay:
        difference = Difference(
            kind=kind,
            stream=stream,
            version=at.version,
            position=at.position,
            recorded=recorded,
            decided=decided,
        )
        return Replay(identical=False, events=events, batches=batches, erased=erased, first_difference=difference)

    def broken(kind: str, at: Stored, recorded: str, decided: str) -> Replay:
        return differs(kind, _Place(at.batch.version + 1, at.position), recorded, decided)

    for each in stored:
        batch = each.batch
        chain = codec.chain(chain, batch.head, map(codec.row_digest, batch.rows))
        if batch.version != version or chain != batch.head.chain:
            return broken("chain", each, batch.head.chain.hex()[:32], chain.hex()[:32])
        try:
            recorded = codec.unpack(each)
        except Exception as error:
            return broken("unreadable", each, batch.head.asked, f"{type(error).__name__}: {error}")
        first = recorded[0]
        strange = next((one for one in recorded if isinstance(one.data, Unknown)), None)
        if strange is not None:
            return differs("unknown", strange, getattr(strange.data, "name", None), None)
        gone = [one for one in recorded if isinstance(one.data, Erased)]
        if gone:
            # What a decision was made from is erased: its events are taken as they stand.
            erased += len(gone)
            for one in recorded:
                states = decider.evolve(noun, states, one.data, one.stamp)
        else:
            command = decider.recall(noun, batch.head.asked, [one.data for one in recorded])
            if command is None:
                return differs("no_command", first, first.type, None)
            try:
                again = decider.decide(
                    noun,
                    states,
                    command,
                    version=version,
                    at=batch.head.at,
                    epoch=each.epoch,
                    principal=batch.head.context.principal,
                    stored=recorded,
                )
            except Exception as error:
                return differs("refused", first, first.type, f"{type(error).__name__}: {error}")
            if again.rows != batch.rows and list(again.events) != [one.data for one in recorded]:
                return _first_difference(differs, recorded, again)
            states = again.states
            owes = tuple(effect.id for effect in decider.owed(noun, states))
            if owes != batch.head.owes:
                return differs("owed", recorded[-1], ", ".join(batch.head.owes), ", ".join(owes))
        version = batch.last
        events += len(recorded)
        batches += 1
        if step is not None:
            step(recorded, states)
    return Replay(identical=True, events=events, batches=batches, erased=erased, states=states)


class _Place(Struct, frozen=True):
    """Where a batch stands that is not to be read."""

    version: int
    position: int


def _first_difference(
    differs: Callable[[str, Recorded, str | None, str | None], Replay],
    recorded: list[Recorded],
    again: decider.Decision,
) -> Replay:
    for one, event in zip(recorded, again.events, strict=False):
        if one.data != event:
            return differs("event", one, _say(one.data), _say(event))
    if len(again.events) < len(recorded):
        one = recorded[len(again.events)]
        return differs("missing", one, _say(one.data), None)
    return differs("extra", recorded[-1], None, _say(again.events[min(len(recorded), len(again.events) - 1)]))


def _say(event: Any) -> str:
    text = f"{event.type} {event!r}"
    return text if len(text) <= 500 else text[:500] + "…"
