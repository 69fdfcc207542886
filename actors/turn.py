"""A turn: call the model, go on with what came of it, until it asks for nothing more. Pure.

Everything that must hold before a model is called comes in `think`, in this order: which model, may it be called, is
there money. A gate that is shut gives other events, and the event that opens it leads to `think` again.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ..events.action import ActionRequired
from ..events.agent import (
    FailModel,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    Selection,
    SelectModel,
    TurnCompleted,
    TurnStarted,
)
from ..events.budget import Amount, Breach, Raise, nanos
from ..events.content import Failure, ToolCall
from ..events.message import Event, Stamp, digest, show_digest
from ..events.policy import ModelDenied, ModelWarned, PolicyDecision
from ..events.purse import AllotmentWanted, BudgetExceeded, RunRaised
from ..events.session import JobStarted
from . import purse as money
from . import selection
from .approval import model_digest, policy_digest, raise_digest
from .mind import Call, State, Tool, cap_of, definition_of, model_of, money_terms, params_of
from .policy import Rights, Said, Verdict, denied_by
from .purse import Purse, Wish

NOT_ASKED = Failure(code="cancelled", message="Stopped before the model was asked.")
NOT_ALLOWED = "a person would have to approve it"
NO_PRICE = "what a call of this model would cost is not known, and there is a limit on it"


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
        return _too_many(state) if is_spent(state) else think(state)
    return [completed(state, "completed")]


def _too_many(state: State) -> Sequence[Event]:
    turns = _turns(state)
    if state.steps >= turns:
        terms = money_terms(state)
        asks = terms is not None and terms.spec is not None and terms.spec.on_breach == "ask"
        breach = Breach(limit="max_turns", of="run", used=state.steps, wanted=1, most=turns, asks=asks)
        return [BudgetExceeded(breach=breach), ask_raise(state, breach)]
    failure = Failure(code="max_steps", message=f"The turn was ended after {state.steps} model calls, its limit.")
    return [completed(state, "error", failure)]


def is_spent(state: State) -> bool:
    return state.definition is not None and state.steps >= min(state.definition.max_steps, _turns(state))


def _turns(state: State) -> int:
    """Most model calls of this run as its budget has it."""
    terms = money_terms(state)
    spec = terms.spec if terms is not None else None
    return spec.max_turns if spec is not None and spec.max_turns is not None else money.UNBOUNDED


def completed(state: State, reason: str, failure: Failure | None = None) -> TurnCompleted:
    return TurnCompleted(
        turn=state.turn, reason=reason, stop_reason=state.stop_reason, failure=failure, steps=state.steps
    )


# -- before a model is called --


def think(state: State, wait_ms: int = 0) -> Sequence[Event]:
    """The agent's next step of thinking: everything that must hold before a model is called comes in here.

    A call that goes on with another model, or after it was paid for, comes in here too: then `state.call` is there, and
    stuck. wait_ms: how long its next attempt waits.
    """
    if state.selected is not None or state.overrides is not None:
        due = selection.due(state.selected, definition_of(state), state.overrides, state.job_id)
        if due is None and _was_for_another_job(state):
            head = selection.chain_of(definition_of(state), state.overrides)[0]
            due = ModelSelected(model=head, provider=selection.provider_of(head), reason="primary")
        if due is not None:
            return [due]
    return called(state, _next_call(state) if state.call is None else again(state, wait_ms))


def _was_for_another_job(state: State) -> bool:
    """Whether the fallback in force is one that a person allowed an earlier job, or did not: this one begins with the
    first of its chain, and they are asked again when that does not answer."""
    selected, rights = state.selected, state.rights
    if selected is None or rights is None or state.steps or state.call is not None:
        return False
    if selected.job is not None or selected.model == selected.head:
        return False
    return _needs_leave(state, rights, selected.model, rights.model(selected.model))


def _needs_leave(state: State, rights: Rights, model: str, said: Said | Verdict) -> bool:
    asks = said.decision is PolicyDecision.REQUIRE_APPROVAL
    return asks and (model, policy_digest(rights)) not in state.allowed


def called(state: State, call: ModelCalled) -> Sequence[Event]:
    """A call of a model, where the rules and the budgets of the moment let it be made; else why not, and the end of the
    turn.
    """
    rights = state.rights
    if rights is None:
        return _paid(state, call)
    turns = rights.limits.turns
    verdict = rights.model(call.model)
    said: Said | Verdict = verdict
    if turns is not None and state.turn > turns[0]:
        said = turns[1]
    if _needs_leave(state, rights, call.model, said):
        # The same model is tried again by itself: nobody is asked between, they were of the rules of the first time.
        asks = state.call is None or state.call.stuck
        return [_ask_model(state, call, said)] if asks else _no_model(state, call, said, NOT_ALLOWED)
    if said.decision is PolicyDecision.DENY:
        return _no_model(state, call, said, said.reason)
    if said.decision is PolicyDecision.WARN and not state.steps:
        warned = ModelWarned(
            call=call.call,
            model=call.model,
            rule=said.rule or "",
            reason=said.reason,
            policy=said.policy,
            version=said.version,
        )
        return [warned, *_paid(state, call)]
    return _paid(state, call)


def _no_model(state: State, call: ModelCalled, said: Said | Verdict, reason: str) -> Sequence[Event]:
    denied = ModelDenied(
        call=call.call,
        attempt=call.attempt,
        model=call.model,
        rule=said.rule or "",
        reason=reason,
        policy=said.policy,
        version=said.version,
    )
    end = "No model was called." if call.attempt == 1 else f"{call.model} was not called."
    before = state.call.tried if state.call is not None else ()
    failure = Failure(code="policy_denied", message=f"{denied_by(said)}: {reason}. {end}", tried=before or None)
    return [denied, completed(state, "error", failure)]


def _ask_model(state: State, call: ModelCalled, said: Said | Verdict) -> ActionRequired:
    """A person is asked whether this job may be answered by this model."""
    action, policy = f"a{state.actions + 1}", policy_digest(state.rights)
    wait_s = definition_of(state).approval_timeout_s
    return ActionRequired(
        action=action,
        kind="approval",
        timeout_ms=round(wait_s * 1000),
        payload={"model": call.model},
        job_id=state.job_id,
        reason=f"policy {said.policy}/{said.rule}",
        digest=model_digest(state.session_id, action, state.job_id, call.model, policy),
        policy=policy,
    )


def unthinkable(state: State, reason: str) -> Sequence[Event]:
    """A person did not allow the model: the turn is over."""
    call = _next_call(state) if state.call is None else again(state)
    said = Verdict() if state.rights is None else state.rights.model(call.model)
    return _no_model(state, call, said, reason)


def _paid(state: State, call: ModelCalled) -> Sequence[Event]:
    """A call of a model, with the money for it set aside; or what is asked for first; or the end of the turn."""
    terms = money_terms(state)
    dear = None if state.rights is None else state.rights.limits.cost_per_request
    if terms is None:
        return [call] if dear is None else _no_model(state, call, dear[1], NO_PRICE)
    params, purse = call.params or params_of(state), state.purse or money.EMPTY
    thinks = params.thinking not in (None, "off")
    written = params.max_tokens or money.OUTPUT_TOKENS
    wish = Wish(
        call=call.call,
        attempt=call.attempt,
        model=call.model,
        read=state.known + state.fresh + (0 if state.known else terms.overhead),
        written=written,
        least=min(written, money.LEAST_THINKING_TOKENS if thinks else money.LEAST_TOKENS),
        rate=money.rate_of(terms, call.model),
        steps=state.steps if call.attempt == 1 else state.steps - 1,
        wait_ms=call.wait_ms,
    )
    if dear is not None:
        if wish.rate is None:
            return _no_model(state, call, dear[1], NO_PRICE)
        within = wish.fits(written, Amount(money.UNBOUNDED, nanos(dear[0]), 1, 0))
        if within < wish.least:
            return _no_model(state, call, dear[1], dear[1].reason)
        wish = replace(wish, written=within)
    cheaper = (purse.grant.degrade_to if purse.grant is not None else None) or terms.degrade_to
    other = None if cheaper is None else replace(wish, model=cheaper, rate=money.rate_of(terms, cheaper))
    if dear is not None and other is not None and (other.rate is None or other.amount(within).cost > nanos(dear[0])):
        other = None
    degraded = state.selected is not None and state.selected.reason == "budget"
    gate = money.gate(purse, terms, wish, other, degraded=degraded)
    if gate.breach is not None:
        exceeded = BudgetExceeded(breach=gate.breach, call=call.call, attempt=call.attempt)
        return [exceeded, ask_raise(state, gate.breach)]
    if gate.asks:
        return gate.events
    if gate.degrades is not None:
        provider, under_way = selection.provider_of(gate.degrades), state.call is not None
        selected = ModelSelected(
            model=gate.degrades,
            provider=provider,
            reason="budget",
            call=call.call if under_way else None,
            attempt=call.attempt - 1 if under_way else 0,
        )
        return [*gate.events, selected]
    return [*gate.events, replace(call, params=replace(params, max_tokens=gate.max_tokens))]


def unpaid(state: State, breach: Breach) -> TurnCompleted:
    return completed(state, "error", Failure(code=breach.code, message=breach.text))


def ask_raise(state: State, breach: Breach) -> ActionRequired | TurnCompleted:
    """A limit is in the way: a person is asked to raise it, where that is wanted; else the turn is over.

    Between two attempts at a call nobody is asked.
    """
    if not breach.asks or state.call is not None:
        return unpaid(state, breach)
    action, payload = f"a{state.actions + 1}", money.raise_payload(breach, money.proposed(breach))
    wait_s = definition_of(state).approval_timeout_s
    return ActionRequired(
        action=action,
        kind="approval",
        timeout_ms=round(wait_s * 1000),
        payload=payload,
        job_id=state.job_id,
        reason="budget",
        digest=raise_digest(state.session_id, action, state.job_id, payload),
    )


def raised(state: State, consent: Raise) -> Sequence[Event]:
    """A person raised a limit: of this run at once, any other is for its ledger, which is asked for money again."""
    if consent.of == "run":
        raising = RunRaised(consent=consent)
        return [raising, *think(replace(state, purse=money.raised(state.purse, raising)))]
    return [replace(event, raises=consent) if isinstance(event, AllotmentWanted) else event for event in think(state)]


def _next_call(state: State) -> ModelCalled:
    definition = definition_of(state)
    overrides = state.overrides
    return ModelCalled(
        call=f"m{state.calls + 1}",
        attempt=1,
        upto=state.version,
        image_version=definition.image_version,
        model=model_of(state),
        context=show_digest(digest(state.thinks_with, state.items)),
        params=params_of(state) if (overrides and overrides.params) or cap_of(state) is not None else None,
    )


def again(state: State, wait_ms: int = 0) -> ModelCalled:
    assert state.call is not None
    called = _next_call(state)
    return replace(called, call=state.call.id, attempt=state.call.attempt + 1, upto=state.call.upto, wait_ms=wait_ms)


# -- where a model failed, or another one answers --


def fail(state: State, message: FailModel) -> Sequence[Event]:
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
    )
    return [failed] if select is None else [failed, _selection(select, call)]


def failed(state: State, message: ModelFailed) -> Sequence[Event]:
    if message.advance:
        return ()
    if message.retry_in_ms is not None:
        return called(state, again(state, message.retry_in_ms))
    if state.stopping is not None or message.failure.code == "cancelled":
        return [completed(state, "interrupted")]
    failure = selection.summary(state.tried, message.failure) if message.exhausted else message.failure
    return [completed(state, "error", failure)]


def select(state: State, message: SelectModel) -> Sequence[Event]:
    call = state.call
    if call is None or call.id != message.call or call.attempt != message.attempt or call.stuck:
        return ()
    if state.stopping is not None:  # it was not asked, and is not any more
        return [ModelFailed(call=call.id, attempt=call.attempt, failure=NOT_ASKED)]
    return [_selection(message.select, call)]


def selected(state: State, message: ModelSelected) -> Sequence[Event]:
    """The model that is selected is called: as the next step of a turn, or as the next attempt at a call."""
    return () if state.job_id is None or state.open else think(state)


def _selection(select: Selection, call: Call) -> ModelSelected:
    return ModelSelected(
        model=select.model,
        provider=selection.provider_of(select.model),
        reason=select.reason,
        key=select.key,
        because=select.because,
        call=call.id,
        attempt=call.attempt,
    )


def selection_of(event: ModelSelected) -> Selection:
    return Selection(model=event.model, reason=event.reason, key=event.key, because=event.because)


def models_left(state: State) -> tuple[str, ...]:
    """The models that a call may go to, empty where there is only the one."""
    definition, overrides = definition_of(state), state.overrides
    if not definition.fallbacks and (overrides is None or not overrides.fallbacks):
        return ()
    if state.selected is not None and state.selected.reason == "budget":
        return ()  # the others cost more than there is
    chain = selection.chain_of(definition, overrides)
    rights = state.rights
    if rights is not None:  # what the rules deny is no way out; what a person may allow is, they are asked then
        denied = PolicyDecision.DENY
        chain = (chain[0], *(model for model in chain[1:] if rights.model(model).decision is not denied))
    return chain if len(chain) > 1 else ()


# -- evolve --


def on_turn(state: State, event: TurnStarted, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, turn=event.turn)


def on_called(state: State, event: ModelCalled, stamp: Stamp) -> State:
    not_before = stamp.at + event.wait_ms * 1000 if event.wait_ms else 0
    if event.attempt > 1:
        tried = state.call.tried if state.call is not None else ()
        again = Call(event.call, event.attempt, event.upto, stamp.epoch, not_before, event.model, tried)
        return replace(state, version=stamp.version, call=again)
    call = Call(event.call, 1, event.upto, stamp.epoch, not_before, event.model)
    return replace(state, version=stamp.version, call=call, calls=state.calls + 1, steps=state.steps + 1)


def on_selected(state: State, event: ModelSelected, stamp: Stamp) -> State:
    selected = selection.after(event, definition_of(state), state.overrides, state.job_id)
    call = state.call if state.call is None else replace(state.call, stuck=True)
    purse = state.purse
    if purse is not None and purse.held is not None:
        # Another model is asked in its place. One that was chosen before it was asked cost nothing; one that a budget
        # chose takes the place of a call in doubt, which is spent as it was set aside.
        purse = replace(purse, spent=purse.at_most if event.reason == "budget" else purse.spent, held=None)
    return replace(state, version=stamp.version, selected=selected, call=call, purse=purse)


def on_answered(state: State, event: ModelAnswered, stamp: Stamp) -> State:
    asked = [part for part in event.parts if isinstance(part, ToolCall)]
    if state.selected is not None:
        state = replace(state, selected=selection.settled(state.selected))
    usage = event.usage
    if usage is not None:
        known, fresh = usage.input_tokens + usage.output_tokens, 0
    else:
        known, fresh = state.known, state.fresh + money.tokens_in(event.parts)
    return replace(
        state,
        version=stamp.version,
        items=digest(state.items, stamp.digest),
        call=None,
        stop_reason=event.stop_reason,
        asked=len(asked),
        open=tuple(
            Tool(f"t{number}", part.id, part.name, part.input)
            for number, part in enumerate(asked, start=state.tools + 1)
        ),
        tools=state.tools + len(asked),
        known=known,
        fresh=fresh,
        purse=money.settled(state.purse, event.call, usage, event.cost, stamp.at),
    )


def on_failed(state: State, event: ModelFailed, stamp: Stamp) -> State:
    call = state.call
    tried = (*call.tried, selection.tried(call.model, event.failure, event.key)) if call is not None else ()
    purse = state.purse if state.purse is None else _failed_purse(state.purse, event, stamp.at)
    if event.retry_in_ms is not None:
        call = None if call is None else replace(call, tried=tried, stuck=event.advance)
        return replace(state, version=stamp.version, call=call, purse=purse)
    items, fresh = state.items, state.fresh
    if event.partial:
        items, fresh = digest(items, stamp.digest), fresh + money.tokens_in(event.partial)
    selected = None if state.selected is None else selection.settled(state.selected)
    return replace(
        state,
        version=stamp.version,
        items=items,
        call=None,
        tried=tried,
        selected=selected,
        fresh=fresh,
        purse=purse,
    )


def _failed_purse(purse: Purse, event: ModelFailed, at: int) -> Purse:
    if event.failure == NOT_ASKED:
        return replace(purse, held=None)
    return money.failed(purse, event.call, event.failure, event.partial, event.usage, event.cost, at)
