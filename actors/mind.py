"""What an agent decides from: its state, what is read off it, and what the life of its session makes of it. Pure.

Nothing else is known to a decision. What turns, calls of tools, a person's consent and budgets make of the state stands
in their own rooms: turn.py, step.py, tool.py, doubt.py, consent.py, allotment.py.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.action import Grant
from ..events.agent import AgentConfigured, AgentRegistered, AgentUnregistered, TurnCompleted
from ..events.budget import Terms
from ..events.content import Failure, Tried
from ..events.message import Stamp, digest
from ..events.model import ModelParams
from ..events.policy import Policy
from ..events.session import (
    Definition,
    JobCancelled,
    JobQueued,
    JobStarted,
    JobStopping,
    JobTimedOut,
    Overrides,
    SessionCreated,
)
from ..events.tool import EffectClass
from . import purse as money
from . import selection
from .approval import Approval
from .length import NO_LENGTH, Length, tokens_in
from .picture import Picture, pictures_in
from .policy import ASKING, Rights, rights_of
from .purse import Purse
from .raising import raised_spec
from .selection import Selected
from .terms import merged


class Call(Struct, frozen=True, gc=False):
    """The model call that is owed. not_before: microseconds UTC. tried: the attempts at it that failed.

    stuck: its last attempt failed, and the next one waits for what must hold before a model is called. deaths: owners
    that were gone, one after the other, before this model had answered or failed.
    """

    id: str
    attempt: int
    upto: int
    epoch: int
    not_before: int
    model: str
    tried: tuple[Tried, ...] = ()
    stuck: bool = False
    deaths: int = 0


class Tool(Struct, frozen=True, gc=False):
    """A call without an end yet. status: asked, requested, waiting, authorised, started, doubted, unproved.

    approval: what a person was asked before it may run, None where nobody was.
    """

    id: str
    call_id: str
    name: str
    input: dict[str, Any]
    status: str = "asked"
    effect: EffectClass = "unsafe"
    timeout_s: float = 60.0
    attempt: int = 0
    epoch: int = 0
    version: str = ""
    approval: Approval | None = None


class Input(Struct, frozen=True, gc=False):
    """What a job brings to the conversation. digest: of its item. tokens: an estimate. principal: for whom the job
    counts. within: the rules of the agent that sent it."""

    job_id: str = ""
    digest: bytes = b""
    tokens: int = 0
    principal: str = ""
    within: tuple[Policy, ...] = ()
    pictures: tuple[Picture, ...] = ()


_NO_INPUT = Input()


class Consent(Struct, frozen=True, gc=False):
    """What people are asked in a session, and what they allow.

    actions: questions put so far, by whomever. grants: leave for calls to come, as people gave it. held: the question
    before the next model call, with the model and the policy it is about. allowed: models that a person allowed this
    job, each under a policy.
    """

    actions: int = 0
    grants: tuple[Grant, ...] = ()
    held: tuple[str, str, str] | None = None
    allowed: tuple[tuple[str, str], ...] = ()

    def over(self, *, job: bool) -> Consent:
        """Nothing is held any more. job: nor is anything allowed for one."""
        if self.held is None and not (job and self.allowed):
            return self
        return replace(self, held=None, allowed=() if job else self.allowed)


NO_CONSENT = Consent()


class State(Struct, frozen=True, gc=False):
    """items: digest over the stored digests of the conversation's items. queued: inputs not in it yet. principal: for
    whom the running job counts: who sent it, and where that was an agent, for whom that one's job counted.

    stop_reason, asked, begun: of the last answer, how many calls it asked for, and how many of them began. steps:
    model calls of this turn.
    rights: what the rules leave, None where there are none. tools: calls of tools so far; before: those of other turns.
    selected: the model in force, None where nothing was selected and it is the definition's. keys: the session's own by
    provider. tried: of the call that was given up last. refused: models that were to be asked by the call at hand, and
    that a rule or a limit was in the way of.
    length: of the conversation. purse: None where nothing limits what is spent.
    """

    session_id: str = ""
    agent_id: str | None = None
    container_id: str | None = None
    definition: Definition | None = None
    thinks_with: bytes = b""
    items: bytes = b""
    queued: tuple[Input, ...] = ()
    version: int = 0
    turn: int = 0
    job_id: str | None = None
    principal: str = ""
    overrides: Overrides | None = None
    stopping: str | None = None
    steps: int = 0
    calls: int = 0
    tools: int = 0
    before: int = 0
    rights: Rights | None = None
    call: Call | None = None
    stop_reason: str | None = None
    asked: int = 0
    begun: int = 0
    open: tuple[Tool, ...] = ()
    selected: Selected | None = None
    keys: tuple[tuple[str, str], ...] = ()
    tried: tuple[Tried, ...] = ()
    refused: tuple[Tried, ...] = ()
    consent: Consent = NO_CONSENT
    length: Length = NO_LENGTH
    purse: Purse | None = None


_NO_DEFINITION = Definition(image_version=0, model="")


def tool_of(state: State, tool: str) -> Tool | None:
    return next((each for each in state.open if each.id == tool), None)


def with_tool(state: State, tool: str, stamp: Stamp, **changes: Any) -> State:
    return replace(
        state,
        version=stamp.version,
        open=tuple(replace(each, **changes) if each.id == tool else each for each in state.open),
    )


def definition_of(state: State) -> Definition:
    return state.definition or _NO_DEFINITION


def model_of(state: State) -> str:
    """The model in force."""
    return definition_of(state).model if state.selected is None else state.selected.model


def params_of(state: State, model: str | None = None) -> ModelParams:
    """The settings of the next call: the definition's, the job's own over them, and no more tokens than rules allow.
    model: that is called, None for the one in force."""
    base = state.definition.params if state.definition else ModelParams()
    own = state.overrides.params if state.overrides else None
    if own is not None:
        wanted = {name: value for name in ModelParams.__struct_fields__ if (value := getattr(own, name)) is not None}
        base = replace(base, **wanted)
    cap = cap_of(state, model)
    if cap is not None and (base.max_tokens is None or base.max_tokens > cap):
        base = replace(base, max_tokens=cap)
    return base


def cap_of(state: State, model: str | None = None) -> int | None:
    """Most tokens that the rules let a model, or the one in force, write in one call."""
    return None if state.rights is None else state.rights.model(model or model_of(state)).tokens


def money_terms(state: State) -> Terms | None:
    definition, overrides, purse = state.definition, state.overrides, state.purse
    terms = None if definition is None else definition.terms
    if overrides is not None and overrides.terms is not None:
        terms = merged(terms, overrides.terms)
    if purse is None or not purse.raised or terms is None or terms.spec is None:
        return terms
    return replace(terms, spec=raised_spec(terms.spec, purse.raised))


def approval_ms(state: State) -> int:
    """How long a person may take to allow something."""
    return round(definition_of(state).approval_timeout_s * 1000)


def completed(state: State, reason: str, failure: Failure | None = None) -> TurnCompleted:
    """The end of the turn as it stands."""
    return TurnCompleted(
        turn=state.turn, reason=reason, stop_reason=state.stop_reason, failure=failure, steps=state.steps
    )


def knows_ledger(state: State) -> bool:
    terms = money_terms(state)
    return terms is not None and terms.ledger is not None


# -- what it takes from the life of its session --


def on_created(state: State, event: SessionCreated, stamp: Stamp) -> State:
    return replace(
        state,
        version=stamp.version,
        session_id=event.session_id,
        container_id=event.container_id,
        items=stamp.digest,
    )


def on_queued(state: State, event: JobQueued, stamp: Stamp) -> State:
    within = (event.overrides.within or ()) if event.overrides is not None else ()
    tokens, pictures = tokens_in(event.content), pictures_in(event.content)
    queued = Input(event.job_id, stamp.digest, tokens, event.counts_for(stamp.principal), within, pictures)
    return replace(state, version=stamp.version, queued=(*state.queued, queued))


def on_gone(state: State, event: JobCancelled | JobTimedOut, stamp: Stamp) -> State:
    queued = tuple(each for each in state.queued if each.job_id != event.job_id)
    return replace(state, version=stamp.version, queued=queued)


def on_registered(state: State, event: AgentRegistered, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, agent_id=event.agent_id, container_id=event.container_id)


def on_configured(state: State, event: AgentConfigured, stamp: Stamp) -> State:
    wanted, had = event.definition, state.definition
    selected = state.selected
    if selected is not None and (had is None or (wanted.model, wanted.fallbacks) != (had.model, had.fallbacks)):
        selected = None  # what is asked for now is asked
    purse = state.purse
    if wanted.terms is not None and state.job_id is not None and (purse is None or not purse.counts):
        # From here on the running job is under a budget; of one without a purse nobody knows when it began.
        purse = replace(purse or replace(money.EMPTY, began_at=stamp.at), counts=True)
    after = replace(
        state,
        version=stamp.version,
        definition=wanted,
        thinks_with=stamp.digest,
        rights=_rights(wanted, state.overrides),
        selected=selected,
        purse=purse,
    )
    if purse is None or state.job_id is None:
        return after
    return replace(after, purse=money.configured(purse, money_terms(after)))


def on_unregistered(state: State, event: AgentUnregistered, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, agent_id=None)


def on_job(state: State, event: JobStarted, stamp: Stamp) -> State:
    mine = next((each for each in state.queued if each.job_id == event.job_id), _NO_INPUT)
    overrides = event.overrides
    if mine.within:
        overrides = replace(overrides or Overrides(), within=mine.within)
    own = None if overrides is None else overrides.terms
    terms = merged(None if state.definition is None else state.definition.terms, own)
    return replace(
        state,
        version=stamp.version,
        items=digest(state.items, mine.digest),
        queued=tuple(each for each in state.queued if each is not mine),
        job_id=event.job_id,
        principal=mine.principal,
        overrides=overrides,
        stopping=None,
        stop_reason=None,
        asked=0,
        steps=0,
        before=state.tools,
        consent=state.consent.over(job=True),
        rights=state.rights if overrides is None else _rights(state.definition, overrides),
        length=state.length.and_more(mine.tokens, mine.pictures),
        selected=_selected(state, overrides),
        purse=money.began(state.purse, stamp.at, mine.principal, terms),
    )


def _selected(state: State, overrides: Overrides | None) -> Selected | None:
    """What is in force as a job begins."""
    return None if state.selected is None else selection.begun(state.selected, definition_of(state), overrides)


def on_stopping(state: State, event: JobStopping, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, stopping=event.reason)


def on_completed(state: State, event: TurnCompleted, stamp: Stamp) -> State:
    own = state.overrides is not None and _rules(state.overrides)
    return replace(
        state,
        version=stamp.version,
        job_id=None,
        overrides=None,
        stopping=None,
        call=None,
        refused=(),
        open=(),
        consent=state.consent.over(job=False),
        rights=_rights(state.definition, None) if own else state.rights,
        purse=money.ended(state.purse, stamp.at),
    )


def handed_on(state: State) -> tuple[Policy, ...]:
    """The rules of the running job as they hold for the jobs that its agent sends."""
    within = () if state.rights is None else state.rights.handed_on
    return (*within, ASKING) if definition_of(state).approval_required else within


def _rules(overrides: Overrides) -> bool:
    """Whether a job is under other rules than its definition's."""
    return overrides.policy is not None or bool(overrides.principal) or bool(overrides.within)


def _rights(definition: Definition | None, overrides: Overrides | None) -> Rights | None:
    """What the rules leave: those of the definition, what the job narrows, and those of the agent that sent it."""
    layers = () if definition is None else definition.policy
    if overrides is not None and overrides.policy is not None:
        layers = (*layers, overrides.policy)
    if overrides is not None and overrides.within:
        layers = (*layers, *overrides.within)
    scope, principal = definition.scope if definition else "default", overrides.principal if overrides else ""
    return rights_of(layers, scope, principal) if layers else None
