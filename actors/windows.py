"""The stream in which windows of cooldowns stand, so that the next process leaves alone what this one had to. Pure.

It decides nothing of them: the rules are in cooldown.py, and the table is worked out by whoever calls models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from ..events.cooldown import CooldownEnded, CooldownOpened, NoteCooldowns
from ..events.message import Command, Context, Effect, Event, Stamp
from .cooldown import LONGEST_S, Cooldowns, CooldownTimes, Noted, Window, asked_place
from .decider import Decider, Noun

LAST_FACTS = 32
"""Of so many keys and models it is known what was noted last, so that it is not noted again."""

Fact = CooldownOpened | CooldownEnded


class State(Struct, frozen=True):
    """last: the newest facts, one of a key and model."""

    last: tuple[Fact, ...] = ()


def decide(state: State, message: Command | Event) -> Sequence[Event]:
    if not isinstance(message, NoteCooldowns):
        return []
    told: tuple[Fact, ...] = (*message.opened, *message.ended)
    facts = {place_of(fact): fact for fact in told}  # of two of the same key and model the last one
    new = [fact for fact in facts.values() if fact not in state.last]
    return sorted(new, key=lambda fact: isinstance(fact, CooldownEnded))


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    if not isinstance(event, CooldownOpened | CooldownEnded):
        return state
    others = [fact for fact in state.last if place_of(fact) != place_of(event)]
    return State((*others[-(LAST_FACTS - 1) :], event))


def owed(state: State) -> Sequence[Effect]:
    return ()


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    opened = tuple(event for event in events if isinstance(event, CooldownOpened))
    ended = tuple(event for event in events if isinstance(event, CooldownEnded))
    return NoteCooldowns(opened=opened, ended=ended) if asked == NoteCooldowns.type and (opened or ended) else None


def _context(states: tuple[State], context: Context) -> Context:
    return context


COOLDOWN = Noun(
    "cooldown-", (Decider("cooldown", State(), decide, evolve, owed, recall),), _context, lambda states: None
)


# -- between a table and its facts --


def changes(before: Cooldowns, after: Cooldowns, model: str) -> NoteCooldowns | None:
    """What changed of the windows when a model answered or failed, None for nothing."""
    if after.windows == before.windows:
        return None
    opened = tuple(
        CooldownOpened(
            model=scope or model,
            key=key,
            whole=scope is None,
            code=window.code,
            since=window.since,
            until=window.until,
            count=window.count,
        )
        for (key, scope), window in after.windows.items()
        if (known := before.windows.get((key, scope))) is None
        or (known.since, known.until) != (window.since, window.until)
    )
    ended = tuple(
        CooldownEnded(model=scope or model, key=key, whole=scope is None)
        for key, scope in before.windows
        if (key, scope) not in after.windows
    )
    return NoteCooldowns(opened=opened, ended=ended) if opened or ended else None


def opened_by(note: NoteCooldowns | None, after: Cooldowns, told: Cooldowns) -> tuple[CooldownOpened, ...]:
    """The windows of a note that the call before `after` opened itself, or widened from one that its scope was told of.

    One that another scope's failure began, and that now is the whole key's, says when that was: it is not told of.
    """
    known = {(window.code, window.since, window.until) for window in told.windows.values()}
    return tuple(
        fact
        for fact in (() if note is None else note.opened)
        if after.windows[place_of(fact)].failed_at == fact.since or (fact.code, fact.since, fact.until) in known
    )


def restored(events: Iterable[Event], now: int, times: CooldownTimes, scope: str = "") -> Cooldowns:
    """The table that these facts leave, oldest first: the windows that are open, and those whose count still counts.
    scope: whose stream they are of.

    One that began in the future was opened before the clock was set back, and is over.
    """
    windows: dict[tuple[str | None, str | None], Window] = {}
    probes: dict[tuple[str | None, str], Noted] = {}
    for event in events:
        if not isinstance(event, CooldownOpened | CooldownEnded):
            continue
        place = place_of(event)
        windows.pop(place, None)
        if isinstance(event, CooldownEnded):
            continue
        end = min(event.until, event.since + round(LONGEST_S * 1_000_000))
        if event.since <= now < max(end, event.since + round(times.forget_s * 1_000_000)):
            windows[place] = Window(event.code, event.since, end, event.count, event.since, scope)
            asked = asked_place(event.key, event.model, event.code)
            known = probes.get(asked)
            probes[asked] = Noted(event.since if known is None else max(event.since, known.at), scope)
    return Cooldowns(windows, probes)


def place_of(fact: Fact) -> tuple[str | None, str | None]:
    """The key and the model of a window, as in a table."""
    return fact.key, None if fact.whole else fact.model
