"""A step of a turn: everything that must hold before a model is called, and what comes of it where it does not. Pure.

Asked in `think`, in this order: which model, may it be called, is there money. A gate that is shut gives other events,
and the event that opens it leads to `think` again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ..events.action import ActionRequired
from ..events.agent import ModelCalled, ModelSelected, TurnCompleted
from ..events.budget import Amount, Breach, Raise, nanos
from ..events.content import Failure
from ..events.message import Event, digest, show_digest
from ..events.policy import ModelDenied, ModelWarned, PolicyDecision
from ..events.purse import AllotmentWanted, BudgetExceeded, RunRaised
from . import gate as gates
from . import purse as money
from . import selection
from .approval import model_digest, policy_digest, raise_digest
from .chain import barred, models_left, read_by, wish_of
from .mind import State, approval_ms, cap_of, completed, definition_of, model_of, money_terms, params_of
from .policy import Rights, Said, Verdict, denied_by
from .raising import proposed, raise_payload
from .terms import rate_of
from .wish import Wish

NOT_ALLOWED = "a person would have to approve it"
NO_PRICE = "what a call of this model would cost is not known, and there is a limit on it"


def think(state: State, wait_ms: int = 0) -> Sequence[Event]:
    """The agent's next step of thinking: everything that must hold before a model is called comes in here.

    A call that goes on with another model, or after it was paid for, comes in here too: then `state.call` is there, and
    stuck. wait_ms: how long its next attempt waits.
    """
    if state.selected is not None or state.overrides is not None:
        due = selection.due(state.selected, definition_of(state), state.overrides, state.job_id)
        if due is None and _is_shut(state):
            due = first(state)
        if due is not None:
            return [due]
    events = called(state, _next_call(state) if state.call is None else again(state, wait_ms))
    return events if state.selected is None else _or_first(state, events)


def first(state: State, because: str | None = None) -> ModelSelected | None:
    """The first of the chain, where a turn is about to begin with a fallback that an earlier one fell back to: what is
    in the way of that need not be in the way of the first. None for any other call. because: what a ledger refused."""
    selected = state.selected
    if selected is None or state.steps or state.call is not None or state.stopping is not None:
        return None
    if selected.job is not None or selected.model == selected.head:
        return None
    head = selection.chain_of(definition_of(state), state.overrides)[0]
    return ModelSelected(model=head, provider=selection.provider_of(head), reason="primary", because=because)


def _is_shut(state: State) -> bool:
    """Whether the rules are in the way of the model in force: they deny it, or it is one that a person allowed an
    earlier job, or did not."""
    rights, selected = state.rights, state.selected
    if rights is None or selected is None:
        return False
    said = rights.model(selected.model)
    return said.decision is PolicyDecision.DENY or _needs_leave(state, rights, selected.model, said)


def _or_first(state: State, events: Sequence[Event]) -> Sequence[Event]:
    """What a turn begins with, or the first of its chain in the place of a fallback that is not paid for."""
    if money_terms(state) is None or not any(isinstance(event, ModelDenied | BudgetExceeded) for event in events):
        return events
    due = first(state)
    return events if due is None else [due]


def _needs_leave(state: State, rights: Rights, model: str, said: Said | Verdict) -> bool:
    asks = said.decision is PolicyDecision.REQUIRE_APPROVAL
    return asks and (model, policy_digest(rights)) not in state.consent.allowed


def called(state: State, call: ModelCalled) -> Sequence[Event]:
    """A call of a model, where the rules and the budgets of the moment let it be made; else why not, and the end of the
    turn.
    """
    rights = state.rights
    if rights is None:
        return _paid(state, call)
    turns = rights.limits.turns
    said: Said | Verdict = rights.model(call.model)
    of_model = True
    if turns is not None and state.turn > turns[0]:
        said, of_model = turns[1], False
    if _needs_leave(state, rights, call.model, said):
        # The same model is tried again by itself: nobody is asked between, they were of the rules of the first time.
        asks = state.call is None or state.call.stuck
        return [_ask_model(state, call, said)] if asks else _no_model(state, call, said, NOT_ALLOWED)
    if said.decision is PolicyDecision.DENY:
        return _no_model(state, call, said, said.reason, of_model=of_model)
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


def _no_model(
    state: State, call: ModelCalled, said: Said | Verdict, reason: str, *, of_model: bool = True
) -> Sequence[Event]:
    """A rule is in the way. of_model: of this model, and where there is another that may be asked, that one is."""
    denied = ModelDenied(
        call=call.call,
        attempt=call.attempt,
        model=call.model,
        rule=said.rule or "",
        reason=reason,
        policy=said.policy,
        version=said.version,
    )
    other = _next_model(state, "policy_denied") if of_model else None
    if other is not None:
        return [denied, other]
    end = "No model was called." if call.attempt == 1 else f"{call.model} was not called."
    before = state.call.tried if state.call is not None else ()
    failure = Failure(code="policy_denied", message=f"{denied_by(said)}: {reason}. {end}", tried=before or None)
    return [denied, completed(state, "error", failure)]


def _ask_model(state: State, call: ModelCalled, said: Said | Verdict) -> ActionRequired:
    """A person is asked whether this job may be answered by this model."""
    action, policy = _next_action(state), policy_digest(state.rights)
    bound = model_digest(state.session_id, action, state.job_id, call.model, policy)
    return _question(state, action, f"policy {said.policy}/{said.rule}", {"model": call.model}, bound, policy)


def _next_action(state: State) -> str:
    return f"a{state.consent.actions + 1}"


def _question(
    state: State, action: str, reason: str, payload: dict[str, Any], bound: str, policy: str = ""
) -> ActionRequired:
    """What the agent itself asks a person before it thinks on. bound: digest over what it is about."""
    return ActionRequired(
        action=action,
        kind="approval",
        timeout_ms=approval_ms(state),
        payload=payload,
        job_id=state.job_id,
        reason=reason,
        digest=bound,
        policy=policy,
    )


def unthinkable(state: State, reason: str) -> Sequence[Event]:
    """A person did not allow the model: the turn is over."""
    call = _next_call(state) if state.call is None else again(state)
    said = Verdict() if state.rights is None else state.rights.model(call.model)
    return _no_model(state, call, said, reason, of_model=False)


def _paid(state: State, call: ModelCalled) -> Sequence[Event]:
    """A call of a model, with the money for it set aside; or what is asked for first; or the end of the turn."""
    terms = money_terms(state)
    dear = None if state.rights is None else state.rights.limits.cost_per_request
    if terms is None:
        return [call] if dear is None else _no_model(state, call, dear[1], NO_PRICE)
    params, purse = call.params or params_of(state), state.purse or money.EMPTY
    wish = wish_of(state, call.model, params, terms, call)
    if dear is not None:
        if wish.rate is None:
            return _no_model(state, call, dear[1], NO_PRICE)
        within = wish.fits(wish.written, Amount(gates.UNBOUNDED, nanos(dear[0]), 1, 0))
        if within < wish.least:
            return _no_model(state, call, dear[1], dear[1].reason)
        wish = replace(wish, written=within)
    cheaper = (purse.grant.degrade_to if purse.grant is not None else None) or terms.degrade_to
    other = None if cheaper is None else replace(wish, model=cheaper, rate=rate_of(terms, cheaper, purse.now))
    if other is not None:
        other = replace(other, read=read_by(state, other.model, terms))
    shut = other is not None and _is_shut_to(state, other)
    fallback = state.selected is not None and state.selected.model != state.selected.head
    degraded = selection.is_degraded(state.selected)
    gate = gates.gate(purse, terms, wish, other, barred=shut, degraded=degraded, fallback=fallback)
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


def _is_shut_to(state: State, other: Wish) -> bool:
    """Whether the rules let a budget choose no such call: they deny its model, or it would cost more than one may."""
    rights = state.rights
    if rights is None:
        return False
    dear = rights.limits.cost_per_request
    if dear is not None and (other.rate is None or other.amount(other.written).cost > nanos(dear[0])):
        return True
    return rights.model(other.model).decision is PolicyDecision.DENY


def unpaid(state: State, breach: Breach) -> TurnCompleted:
    return completed(state, "error", Failure(code=breach.code, message=breach.text))


def ask_raise(state: State, breach: Breach) -> ActionRequired | ModelSelected | TurnCompleted:
    """A limit is in the way: another model is asked, where that may be in the way of this one only; else a person is
    asked to raise it, where that is wanted, and not between two attempts at a call; else the turn is over.
    """
    of_model = breach.code in selection.REFUSED and any(of in breach.limit for of in ("cost", "tokens"))
    model = _next_model(state, breach.code) if of_model else None
    if model is not None:
        return model
    if not breach.asks or state.call is not None:
        return unpaid(state, breach)
    action, payload = _next_action(state), raise_payload(breach, proposed(breach))
    bound = raise_digest(state.session_id, action, state.job_id, payload)
    return _question(state, action, "budget", payload, bound)


def _next_model(state: State, because: str) -> ModelSelected | None:
    """Who is asked where a rule or a limit is in the way of the model in force, None where that is the turn's end.

    The one that it was to be asked in the place of, where that only gave way to the first of the chain; else the next
    of the chain that was neither refused in this call nor failed in it. The first, in a call of its own, is no other's.
    """
    call, refused, selected = state.call, model_of(state), state.selected
    chain, left = selection.chain_of(definition_of(state), state.overrides), models_left(state)
    own = call is None or call.model == refused
    if not left or selected is None or state.stopping is not None or (own and refused == chain[0]):
        return None
    gave_way = () if call is None or selected.reason not in ("probe", "primary") else (call.model,)
    after = chain[chain.index(refused) + 1 :] if refused in chain else chain[1:]
    gone = {refused, *barred(state, left), *(() if call is None else map(selection.name_of, call.tried))}
    model = next((each for each in (*gave_way, *after, *left) if each in left and each not in gone), None)
    if model is None:
        return None
    return ModelSelected(
        model=model,
        provider=selection.provider_of(model),
        reason="primary" if model == chain[0] else "fallback",
        because=because,
        call=None if call is None else call.id,
        attempt=0 if call is None else call.attempt,
        degraded=selection.is_degraded(selected),
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
    """The next attempt at the call under way."""
    call, following = state.call, _next_call(state)
    assert call is not None
    return replace(following, call=call.id, attempt=call.attempt + 1, upto=call.upto, wait_ms=wait_ms)
