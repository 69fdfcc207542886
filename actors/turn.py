"""A turn: call the model, go on with what came of it, until it asks for nothing more. Pure.

What must hold before a model is called is in step.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ..events.agent import (
    NOT_ASKED,
    FailModel,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    Selection,
    SelectModel,
    TurnStarted,
)
from ..events.budget import Breach
from ..events.content import Failure, ToolCall
from ..events.message import Event, Stamp, digest
from ..events.purse import BudgetExceeded
from ..events.session import JobStarted
from . import purse as money
from . import selection
from .gate import UNBOUNDED
from .length import Length, tokens_in
from .mind import Call, State, Tool, completed, definition_of, model_of, money_terms
from .purse import Purse
from .step import again, ask_raise, called, think, unpaid

# -- its course --


def start(state: State, message: JobStarted) -> Sequence[Event]:
    begun = replace(state, turn=state.turn + 1)
    return [TurnStarted(turn=begun.turn, job_id=message.job_id), *think(begun)]


def answered(state: State, message: ModelAnswered) -> Sequence[Event]:
    return () if state.open else proceed(state)


def proceed(state: State) -> Sequence[Event]:
    """What follows when an answer and all that it asked for are in the log."""
    stop_reason = state.stop_reason
    if state.stopping is not None:
        return [completed(state, "interrupted")]
    if stop_reason == "context_exceeded":
        failure = Failure(code="context_exceeded", message="The conversation is longer than the model can read.")
        return [completed(state, "error", failure)]
    if state.purse is not None and state.purse.breach is not None:
        return [unpaid(state, state.purse.breach)]
    if stop_reason != "refusal" and (state.asked or stop_reason == "pause_turn"):
        return _too_many(state) if _is_spent(state) else think(state)
    return [completed(state, "completed")]


def _too_many(state: State) -> Sequence[Event]:
    turns = _turns(state)
    if state.steps >= turns:
        terms = money_terms(state)
        asks = terms is not None and terms.asks("max_turns")
        breach = Breach(limit="max_turns", of="run", used=state.steps, wanted=1, most=turns, asks=asks)
        return [BudgetExceeded(breach=breach), ask_raise(state, breach)]
    failure = Failure(code="max_steps", message=f"The turn was ended after {state.steps} model calls, its limit.")
    return [completed(state, "error", failure)]


def ends(state: State) -> bool:
    """Whether no model is called after this answer, and nobody is asked whether one may be."""
    if not _is_spent(state):
        return False
    terms = money_terms(state)
    return terms is None or not terms.asks("max_turns") or state.steps < _turns(state)


def _is_spent(state: State) -> bool:
    return state.definition is not None and state.steps >= min(state.definition.max_steps, _turns(state))


def _turns(state: State) -> int:
    """Most model calls of this run as its budget has it."""
    terms = money_terms(state)
    spec = terms.spec if terms is not None else None
    return spec.max_turns if spec is not None and spec.max_turns is not None else UNBOUNDED


# -- where a model failed, or another one answers --


def fail(state: State, message: FailModel) -> Sequence[Event]:
    """An attempt under way gave no complete answer. Its event says what follows: the same again after a wait, another
    model at once, which is selected beside it, or the end of the call.
    """
    call = state.call
    if call is None or call.id != message.call or message.attempt not in (0, call.attempt) or call.stuck:
        return ()
    select = None if state.stopping is not None else message.select
    retry_in_ms = None if state.stopping is not None else 0 if select is not None else message.retry_in_ms
    failed = ModelFailed(
        call=call.id,
        attempt=call.attempt,
        failure=message.failure,
        partial=message.partial,
        usage=message.usage,
        retry_in_ms=retry_in_ms,
        duration_ms=message.duration_ms,
        cost=message.cost,
        key=message.key,
        advance=select is not None,
        exhausted=message.exhausted and retry_in_ms is None,
        unasked=message.unasked,
    )
    return [failed] if select is None else [failed, _selection(select, call)]


def failed(state: State, message: ModelFailed) -> Sequence[Event]:
    """What follows from a failed attempt: another, or the end of the turn."""
    if message.advance:
        return ()
    if message.retry_in_ms is not None:
        return called(state, again(state, message.retry_in_ms))
    if state.stopping is not None or message.failure.code == "cancelled":
        return [completed(state, "interrupted")]
    failure = message.failure
    if message.exhausted:
        failure = selection.summary(state.tried, failure, state.refused)
    return [completed(state, "error", failure)]


def select(state: State, message: SelectModel) -> Sequence[Event]:
    """Another model, or another key, is to be asked before this attempt was: recorded where it is still under way. Or
    what it is about to ask is noted.
    """
    call = state.call
    if call is None or call.id != message.call or call.attempt != message.attempt or call.stuck:
        return ()
    if message.noted:
        there = state.stopping is None and message.select.model == call.model
        return [replace(_selection(message.select, call), noted=True)] if there else ()
    if state.stopping is not None:  # it was not asked, and is not any more
        return [ModelFailed(call=call.id, attempt=call.attempt, failure=NOT_ASKED)]
    return [_selection(message.select, call)]


def selected(state: State, message: ModelSelected) -> Sequence[Event]:
    """The model that is selected is called: as the next step of a turn, or as the next attempt at a call."""
    return () if state.job_id is None or state.open or message.noted else think(state)


def _selection(select: Selection, call: Call) -> ModelSelected:
    return ModelSelected(
        model=select.model,
        provider=selection.provider_of(select.model),
        reason=select.reason,
        key=select.key,
        because=select.because,
        call=call.id,
        attempt=call.attempt,
        degraded=select.degraded,
    )


def selection_of(event: ModelSelected) -> Selection:
    names = ("model", "reason", "key", "because", "degraded")
    return Selection(**{name: getattr(event, name) for name in names})


# -- evolve --


def on_turn(state: State, event: TurnStarted, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, turn=event.turn)


def on_called(state: State, event: ModelCalled, stamp: Stamp) -> State:
    if state.purse is not None and state.purse.held is not None:
        state = replace(state, purse=money.called(state.purse, money_terms(state), stamp.at))
    not_before = stamp.at + event.wait_ms * 1000 if event.wait_ms else 0
    if event.attempt > 1:
        before, deaths = state.call, 0
        tried = () if before is None else before.tried
        if before is not None and before.model == event.model:
            deaths = before.deaths + (stamp.epoch != before.epoch and not before.stuck)
        again = Call(event.call, event.attempt, event.upto, stamp.epoch, not_before, event.model, tried, deaths=deaths)
        return replace(state, version=stamp.version, call=again)
    call = Call(event.call, 1, event.upto, stamp.epoch, not_before, event.model)
    return replace(state, version=stamp.version, call=call, calls=state.calls + 1, steps=state.steps + 1)


def on_selected(state: State, event: ModelSelected, stamp: Stamp) -> State:
    selected = selection.after(event, definition_of(state), state.overrides, state.job_id, state.selected)
    keys = selection.keys_after(event, state.keys)
    if event.noted:
        return replace(state, version=stamp.version, selected=selected, keys=keys)
    call = state.call if state.call is None else replace(state.call, stuck=True)
    purse = money.ticked(state.purse, stamp.at)
    if event.because in selection.REFUSED:
        state = replace(state, refused=(*state.refused, selection.unasked(model_of(state), event.because or "")))
    purse = None if purse is None else money.turned(purse, event)
    return replace(state, version=stamp.version, selected=selected, keys=keys, call=call, purse=purse)


def on_answered(state: State, event: ModelAnswered, stamp: Stamp) -> State:
    asked = [part for part in event.parts if isinstance(part, ToolCall)]
    if state.selected is not None:
        state = replace(state, selected=selection.settled(state.selected))
    usage, by = event.usage, None if state.call is None else state.call.model
    if usage is None:
        length = state.length.and_more(tokens_in(event.parts))
    else:
        counted, pictures = usage.input_tokens + usage.output_tokens, state.length.pictures.counted
        length = Length(counted, _shared(by or "", state), 0, pictures)
    return replace(
        state,
        version=stamp.version,
        items=digest(state.items, stamp.digest),
        call=None,
        refused=(),
        stop_reason=event.stop_reason,
        asked=len(asked),
        begun=0,
        open=tuple(
            Tool(f"t{number}", part.id, part.name, part.input)
            for number, part in enumerate(asked, start=state.tools + 1)
        ),
        tools=state.tools + len(asked),
        length=length,
        purse=money.settled(state.purse, event.call, usage, event.cost, stamp.at, by),
    )


def _shared(model: str, state: State) -> str:
    """The same name, as one text with the definition's where it is that one's: many sessions are kept awake."""
    own = "" if state.definition is None else state.definition.model
    return own if own == model else model


def on_failed(state: State, event: ModelFailed, stamp: Stamp) -> State:
    call = state.call
    tried = (*call.tried, selection.tried(call.model, event.failure, event.key)) if call is not None else ()
    purse = money.ticked(state.purse, stamp.at)
    purse = None if purse is None else _failed_purse(purse, event, stamp.at)
    if event.retry_in_ms is not None:
        call = None if call is None else replace(call, tried=tried, stuck=event.advance, deaths=0)
        return replace(state, version=stamp.version, call=call, purse=purse)
    items, length = state.items, state.length
    if event.partial:
        items, length = digest(items, stamp.digest), length.and_more(tokens_in(event.partial))
    selected = None if state.selected is None else selection.settled(state.selected)
    return replace(
        state,
        version=stamp.version,
        items=items,
        call=None,
        tried=tried,
        selected=selected,
        length=length,
        purse=purse,
    )


def _failed_purse(purse: Purse, event: ModelFailed, at: int) -> Purse:
    if not event.asked:
        return replace(purse, held=None)
    return money.failed(purse, event.call, event.failure, event.partial, event.usage, event.cost, at)
