"""What the ledger allots to a session: asked for, taken, refused, given back. Pure.

Whatever waits for it, a call of a model or calls of tools, goes on when it is taken. The purse that it goes into
is in purse.py, and what that says to a call in gate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from ..events.agent import TurnCompleted, WakeAt
from ..events.budget import Grant
from ..events.message import Effect, Event, Stamp
from ..events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetExceeded,
    BudgetReserved,
    BudgetWarned,
    RefuseAllotment,
    ReleaseAllotment,
    RequestAllotment,
    RunRaised,
    TakeAllotment,
)
from ..events.session import SessionClosed
from . import purse as money
from .mind import State, money_terms
from .purse import Purse
from .step import ask_raise, first, think
from .tool import not_funded


def take(state: State, message: TakeAllotment) -> Sequence[Event]:
    """The ledger allots: whatever waited for it goes on. Of an ask that is not the open one: nothing happens."""
    purse = state.purse
    if purse is None or purse.asking is None or purse.asking.ask != message.ask:
        return ()
    events: list[Event] = [AllotmentTaken(ask=message.ask, grant=message.grant)]
    warned = (*message.grant.warned, *_come_near(state, message.grant))
    if warned and warned != purse.warned:
        events.append(BudgetWarned(limits=warned))
    return events  # what waited is looked at, and goes on if it still may


def taken(state: State, message: AllotmentTaken) -> Sequence[Event]:
    """The call that waited for it is made; or it came after its day, and the ledger is asked for one of today."""
    waits = state.job_id is not None and not state.open and state.stopping is None
    return think(state, state.purse.wait_ms) if waits and state.purse is not None else ()


def _come_near(state: State, grant: Grant) -> Iterator[str]:
    """The limits that calls which waited are warned of if all of them begin: of so few, none is."""
    waiting = sum(tool.status == "requested" for tool in state.open)
    yield from (text for text, most in grant.ahead if waiting > most)


def refuse(state: State, message: RefuseAllotment) -> Sequence[Event]:
    """The ledger does not: calls of tools that waited are denied, and a call of a model is not made."""
    purse = state.purse
    if purse is None or purse.asking is None or purse.asking.ask != message.ask:
        return ()
    waiting = tuple(tool.id for tool in state.open if tool.status == "requested")
    exceeded = BudgetExceeded(breach=message.breach, ask=message.ask, tools=waiting)
    if purse.asking.tools:
        return [exceeded, *(not_funded(tool, message.breach) for tool in waiting)]
    back = first(state, message.breach.code)
    return [exceeded, ask_raise(state, message.breach) if back is None else back]


def release(state: State, message: ReleaseAllotment) -> Sequence[Event]:
    released = money.release(state.purse, message.ask)
    return () if released is None else [released]


def close(state: State, message: SessionClosed | TurnCompleted) -> Sequence[Event]:
    """A session that is closed needs no more than what is under way."""
    released = money.release(state.purse) if state.purse is not None and state.purse.closing else None
    return () if released is None else [released]


def owed_for(state: State, purse: Purse) -> Sequence[Effect]:
    """What is owed under a budget: the end of the time that the run has, and the asking for more."""
    effects: list[Effect] = []
    terms = money_terms(state)
    spec = terms.spec if terms is not None else None
    if spec is not None and spec.max_runtime_seconds is not None:
        at = purse.began_at + int(spec.max_runtime_seconds * 1_000_000)
        effects.append(WakeAt(id=f"runtime-{state.job_id}", job_id=state.job_id or "", at=at, since=purse.began_at))
    asking = purse.asking
    if asking is not None:
        effects.append(
            RequestAllotment(
                id=asking.ask,
                ledger=asking.ledger,
                session_id=state.session_id,
                principal_id=state.principal,
                spent=purse.spent,
                want=asking.want,
                least=asking.least,
                priced=asking.priced,
                at=asking.at,
                made=purse.made,
                raises=asking.raises,
            )
        )
    return effects


# -- evolve --


def on_reserved(state: State, event: BudgetReserved, stamp: Stamp) -> State:
    terms = money_terms(state)
    overhead = terms.overhead if terms is not None else 0
    return replace(state, version=stamp.version, purse=money.reserved(state.purse, event, stamp.at, overhead))


def on_wanted(state: State, event: AllotmentWanted, stamp: Stamp) -> State:
    call = state.call if state.call is None or event.tools else replace(state.call, stuck=True)
    waiting = tuple(replace(each, status="requested") if each.id in event.tools else each for each in state.open)
    purse = money.asked(state.purse, event, stamp.at)
    return replace(state, version=stamp.version, call=call, open=waiting, purse=purse)


def on_taken(state: State, event: AllotmentTaken, stamp: Stamp) -> State:
    paid = tuple(replace(each, status="authorised") if each.status == "requested" else each for each in state.open)
    return replace(state, version=stamp.version, open=paid, purse=money.taken(state.purse, event, stamp.at))


def on_exceeded(state: State, event: BudgetExceeded, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, purse=money.exceeded(state.purse, event))


def on_raised(state: State, event: RunRaised, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, purse=money.raised(state.purse, event))


def on_released(state: State, event: AllotmentReleased, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, purse=money.released(state.purse, event))


def on_closed(state: State, event: SessionClosed, stamp: Stamp) -> State:
    purse = state.purse if state.purse is None else replace(state.purse, closing=True)
    return replace(state, version=stamp.version, purse=purse)
