"""The models that a call may go to, for all that rules and limits say before one is asked. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from ..events.agent import ModelCalled
from ..events.budget import Rate, Terms, nanos
from ..events.model import ModelParams
from ..events.policy import PolicyDecision
from . import gate as gates
from . import purse as money
from . import selection
from .mind import State, definition_of, money_terms, params_of
from .terms import rate_of
from .wish import LEAST_THINKING_TOKENS, LEAST_TOKENS, LEAST_WRITTEN, OUTPUT_TOKENS, Wish


def models_left(state: State) -> tuple[str, ...]:
    """The models that a call may go to, empty where there is only the one."""
    definition, overrides = definition_of(state), state.overrides
    if not definition.fallbacks and (overrides is None or not overrides.fallbacks):
        return ()
    chain, chosen = selection.chain_of(definition, overrides), selection.chosen_by_budget(state.selected)
    if chosen is not None:
        chain = tuple(dict.fromkeys((chosen, *chain[1:])))
    chain, rights = _payable(state, chain), state.rights
    if rights is not None:  # what the rules deny is no way out; what a person may allow is, they are asked then
        denied = PolicyDecision.DENY
        chain = (chain[0], *(model for model in chain[1:] if rights.model(model).decision is not denied))
    return chain if len(chain) > 1 else ()


def barred(state: State, chain: tuple[str, ...]) -> tuple[str, ...]:
    """Of these models, those that this call may not go to: what rules or limits refused it, and the first one where the
    session fell back and they are in the way of that."""
    selected, rights = state.selected, state.rights
    if not chain or selected is None:
        return ()
    refused = tuple(map(selection.name_of, state.refused))
    if selected.model == chain[0] or chain[0] in refused:
        return refused
    denied = rights is not None and rights.model(chain[0]).decision is PolicyDecision.DENY
    dear = not selection.is_degraded(selected) and chain[0] not in _payable(state, (selected.model, chain[0]))
    return (chain[0], *refused) if denied or dear else refused


def _payable(state: State, chain: tuple[str, ...]) -> tuple[str, ...]:
    """The first of a chain, and of the others those that a call may go to for all that is known of money: with a price
    where one is needed, and within what a call may use; where a budget chose the first, with no price higher than its.
    """
    terms, degraded = money_terms(state), selection.is_degraded(state.selected)
    if terms is None:
        return chain[:1] if degraded else chain
    grant, now = (None, 0) if state.purse is None else (state.purse.grant, state.purse.now)
    first = rate_of(terms, chain[0], now)
    if degraded:
        return (chain[0], *(each for each in chain[1:] if _costs_no_more(rate_of(terms, each, now), first)))
    needed = grant is not None and grant.needs_price and terms.ledger is not None
    needed = needed or (terms.spec is not None and terms.spec.needs_price)
    needed = needed or (state.rights is not None and state.rights.limits.cost_per_request is not None)
    others = (each for each in chain[1:] if not needed or rate_of(terms, each, now) is not None)
    return (chain[0], *(each for each in others if _is_affordable(state, each, terms)))


def _costs_no_more(rate: Rate | None, than: Rate | None) -> bool:
    return rate is not None and than is not None and rate.input <= than.input and rate.output <= than.output


def _is_affordable(state: State, model: str, terms: Terms) -> bool:
    """Whether a call of a model fits the limits that are known here: those of the run, and those of every call."""
    purse, rights = state.purse or money.EMPTY, state.rights
    room = gates.room(purse, terms, purse.grant)
    dear = None if rights is None else rights.limits.cost_per_request
    if dear is not None:
        room = replace(room, cost=min(room.cost, nanos(dear[0])))
    wish = wish_of(state, model, params_of(state, model), terms)
    return wish.fits(wish.written, room) >= wish.least


def wish_of(state: State, model: str, params: ModelParams, terms: Terms, call: ModelCalled | None = None) -> Wish:
    """What a call of a model would like to use, at most. call: which, None for one that is only thought of."""
    thinks = params.thinking not in (None, "off")
    written = max(params.max_tokens or OUTPUT_TOKENS, LEAST_WRITTEN.get(selection.provider_of(model), 0))
    return Wish(
        call="" if call is None else call.call,
        attempt=1 if call is None else call.attempt,
        model=model,
        read=read_by(state, model, terms),
        written=written,
        least=min(written, LEAST_THINKING_TOKENS if thinks else LEAST_TOKENS),
        rate=rate_of(terms, model, 0 if state.purse is None else state.purse.now),
        steps=state.steps if call is None or call.attempt == 1 else state.steps - 1,
        wait_ms=0 if call is None else call.wait_ms,
        tools=state.asked,
    )


def read_by(state: State, model: str, terms: Terms) -> int:
    return state.length.read_by(model, terms, None if state.purse is None else state.purse.counted)
