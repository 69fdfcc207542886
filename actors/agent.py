"""An agent: an image awake, thinking in the stream of its session. Pure.

A turn is a walk: call the model, run what it asks for, call it again with the results, until it asks for nothing. Each
step is owed to the world until the log has its end, so the first run, a retry and the morning after a crash are one
path:

    model_called --> model_answered --> tool_started ... tool_settled --> model_called --> ... --> turn_completed
         '--> model_failed --> model_called (attempt + 1, after a wait) or turn_completed(error)
                   '--> model_selected --> model_called (attempt + 1, of another model or with another key)

Before every call of a model and every run of a tool the rules of the moment are asked (`rights`, from policy.py); what
they deny is told to the model and stands in the log.

A call begun by an owner that is gone is in doubt. Its class says what follows: `read` and `idempotent` run again with
the same key, `probeable` asks the world first, `unsafe` waits for a person and is never begun twice by a guess.

A call that a person must approve waits beside the others, and is looked at again when it may begin: what starts is what
was approved, with the arguments in the log, in time, or nothing.

    tool_requested, action_required --> action_resolved, tool_authorised --> tool_checked, tool_started --> tool_settled
         '--> denied, expired, taken back, changed since: tool_settled(denied)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.action import (
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    Grant,
    GrantRevoked,
    GrantUsed,
    ResolveAction,
    RevokeGrant,
)
from ..events.agent import (
    AgentConfigured,
    AgentRegistered,
    AgentUnregistered,
    AnswerModel,
    CallModel,
    CancelEffect,
    FailModel,
    LaunchTool,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ProbeTool,
    ProveTool,
    RecoverEffect,
    ResolveTool,
    RunTool,
    Selection,
    SelectModel,
    SettleTool,
    StartTool,
    StopAgent,
    ToolAuthorised,
    ToolChecked,
    ToolDoubted,
    ToolOutput,
    ToolRelaunched,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
    TurnStarted,
    WakeAgent,
    WakeAt,
)
from ..events.budget import Amount, Breach, nanos
from ..events.budget import Terms as MoneyTerms
from ..events.content import Failure, ToolCall, Tried
from ..events.errors import BadInput, BadResolution, Full, NotFound, PolicyDenied
from ..events.message import Command, Effect, Event, Stamp, digest, show_digest
from ..events.model import ModelAnswer, ModelParams
from ..events.policy import ApplyPolicy, ModelDenied, ModelWarned, PolicyDecision, ToolDenied
from ..events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetDegraded,
    BudgetExceeded,
    BudgetReserved,
    BudgetWarned,
    RefuseAllotment,
    ReleaseAllotment,
    RequestAllotment,
    TakeAllotment,
)
from ..events.session import (
    CloseSession,
    Definition,
    JobCancelled,
    JobQueued,
    JobStarted,
    JobStopping,
    JobTimedOut,
    Overrides,
    Send,
    SessionClosed,
    SessionCreated,
)
from ..events.tool import APPROVAL_TIMEOUT_S, CallCheck, EffectClass, Place, arguments_digest
from . import purse as money
from . import selection
from .approval import (
    GRANTS_MAX,
    Terms,
    grant_digest,
    granted,
    model_digest,
    policy_digest,
    terms_digest,
    what_changed,
    why_asked,
)
from .decider import Decider
from .policy import Rights, Said, Verdict, rights_of
from .purse import Purse, Wish
from .selection import Selected
from .session import waking_of

SKIPPED = "Not run: the turn was stopped before this call began."
INTERRUPTED = "Stopped while it ran: the turn was interrupted."
UNKNOWN = "It is not known whether this call took effect: the program stopped while it ran."
NOT_ASKED = Failure(code="cancelled", message="Stopped before the model was asked.")
NOT_ALLOWED = "a person would have to approve it"
DENIED = "A person did not allow this call. It was not run."
EXPIRED = "Nobody allowed this call in time. It was not run."
TAKEN_BACK = "The question whether this call may run was taken back. It was not run."
DENIED_MODEL = "a person did not allow it"
UNANSWERED_MODEL = "nobody allowed it in time"
CROWDED = "Not run: too many calls wait for a person's approval already."
FULL = "Full"
"""The error type of a call that was one question too many."""

APPROVALS_MAX = 100
"""Most calls of one answer that may wait for an approval."""

NO_PRICE = "what a call of this model would cost is not known, and there is a limit on it"
NO_RUN = {"refusal", "context_exceeded"}
"""Stop reasons after which the calls of the answer are not run."""


class Call(Struct, frozen=True, gc=False):
    """The model call that is owed. not_before: microseconds UTC. tried: the attempts at it that failed.

    stuck: its last attempt failed, and the next one waits for what must hold before a model is called.
    """

    id: str
    attempt: int
    upto: int
    epoch: int
    not_before: int
    model: str
    tried: tuple[Tried, ...] = ()
    stuck: bool = False


class Approval(Struct, frozen=True, gc=False):
    """What a person was asked of a call. asked_at, expires_at: microseconds UTC. digest: over what it is bound to.

    granted: it runs on a leave given before, in `action`.
    """

    action: str
    digest: str
    asked_at: int
    expires_at: int
    timeout_ms: int
    place: Place
    policy: str
    granted: bool = False


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


class State(Struct, frozen=True, gc=False):
    """items: digest over the stored digests of the conversation's items. queued: those of inputs not in it yet, with
    their jobs and tokens.

    actions: questions put in this session so far, by whomever. grants: leave for calls to come, as people gave it.
    held: the question before the next model call, with the model and the policy it is about. allowed: models that a
    person allowed this job, each under a policy.

    stop_reason, asked: of the last answer, and how many calls it asked for. steps: model calls of this turn.
    rights: what the rules leave, None where there are none. tools: calls of tools so far; before: those of other turns.
    selected: the model in force where it is not simply the definition's. tried: of the call that was given up last.
    known: tokens of the conversation up to the last answer, as they were counted; fresh: an estimate of those since.
    purse: None where nothing limits what is spent.
    """

    session_id: str = ""
    agent_id: str | None = None
    last_agent: str | None = None
    container_id: str | None = None
    image_id: str | None = None
    definition: Definition | None = None
    thinks_with: bytes = b""
    items: bytes = b""
    queued: tuple[tuple[str, bytes, int], ...] = ()
    version: int = 0
    turn: int = 0
    job_id: str | None = None
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
    open: tuple[Tool, ...] = ()
    selected: Selected | None = None
    tried: tuple[Tried, ...] = ()
    actions: int = 0
    grants: tuple[Grant, ...] = ()
    held: tuple[str, str, str] | None = None
    allowed: tuple[tuple[str, str], ...] = ()
    known: int = 0
    fresh: int = 0
    purse: Purse | None = None


# -- decide --


def decide(state: State, message: Command | Event) -> Sequence[Event]:
    choose = _DECIDE.get(type(message))
    return choose(state, message) if choose is not None else ()


def _wake(state: State, message: Send | WakeAgent) -> Sequence[Event]:
    if isinstance(message, Send) and (message.job_id == state.job_id or _is_queued(state, message.job_id)):
        return ()
    waking = message.waking
    if state.agent_id is None:
        if waking is None:
            raise BadInput("The agent sleeps, and nothing was said to wake it with.")
        registered = AgentRegistered(
            container_id=waking.container_id,
            agent_id=waking.agent_id,
            image_id=waking.image_id,
            registered_at=waking.registered_at,
        )
        return [registered, AgentConfigured(definition=waking.definition)]
    if waking is not None and waking.definition != state.definition:
        return [AgentConfigured(definition=waking.definition)]
    return ()


def _apply(state: State, message: ApplyPolicy) -> Sequence[Event]:
    definition = state.definition
    if state.agent_id is None or definition is None:
        return ()
    changed = replace(definition, policy=message.policy, scope=message.scope)
    return [] if changed == definition else [AgentConfigured(definition=changed)]


def _is_queued(state: State, job_id: str) -> bool:
    return any(job_id == queued[0] for queued in state.queued)


def _start_turn(state: State, message: JobStarted) -> Sequence[Event]:
    begun = replace(state, turn=state.turn + 1)
    return [TurnStarted(turn=begun.turn, job_id=message.job_id), *_think(begun)]


def _think(state: State, wait_ms: int = 0) -> Sequence[Event]:
    """The agent's next step of thinking: everything that must hold before a model is called comes in here.

    A call that goes on with another model, or after it was paid for, comes in here too: then `state.call` is there, and
    stuck. wait_ms: how long its next attempt waits.
    """
    if state.selected is not None or state.overrides is not None:
        due = selection.due(state.selected, state.definition or _NO_DEFINITION, state.overrides, state.job_id)
        if due is not None:
            return [due]
    return _called(state, _next_call(state) if state.call is None else _again(state, wait_ms))


_NO_DEFINITION = Definition(image_version=0, model="")


def _called(state: State, call: ModelCalled) -> Sequence[Event]:
    """A call of a model, where the rules and the budgets of the moment let it be made; else why not, and the end of the
    turn."""
    rights = state.rights
    if rights is None:
        return _paid(state, call)
    turns = rights.limits.turns
    verdict = rights.model(call.model)
    said: Said | Verdict = verdict
    if turns is not None and state.turn > turns[0]:
        said = turns[1]
    if said.decision is PolicyDecision.REQUIRE_APPROVAL and (call.model, policy_digest(rights)) not in state.allowed:
        # Between two attempts nobody can be asked: the first one was, of the rules of that moment.
        return [_ask_model(state, call, said)] if call.attempt == 1 else _no_model(state, call, said, NOT_ALLOWED)
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
    failure = Failure(code="policy_denied", message=f"{_by(said)}: {reason}. No model was called.")
    return [denied, _completed(state, "error", failure)]


def _ask_model(state: State, call: ModelCalled, said: Said | Verdict) -> ActionRequired:
    """A person is asked whether this job may be answered by this model."""
    action, policy = f"a{state.actions + 1}", policy_digest(state.rights)
    wait_s = APPROVAL_TIMEOUT_S if state.definition is None else state.definition.approval_timeout_s
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


_SHUT = {PolicyDecision.DENY, PolicyDecision.REQUIRE_APPROVAL}


def _paid(state: State, call: ModelCalled) -> Sequence[Event]:
    """A call of a model, with the money for it set aside; or what is asked for first; or the end of the turn."""
    terms = _money_terms(state)
    dear = None if state.rights is None else state.rights.limits.cost_per_request
    if terms is None:
        return [call] if dear is None else _no_model(state, call, dear[1], NO_PRICE)
    params, purse = call.params or _params(state), state.purse or money.EMPTY
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
    gate = money.gate(purse, terms, wish, other)
    if gate.breach is not None:
        exceeded = BudgetExceeded(breach=gate.breach, call=call.call, attempt=call.attempt)
        return [exceeded, _unpaid(state, gate.breach)]
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


def _money_terms(state: State) -> MoneyTerms | None:
    own = state.overrides.terms if state.overrides is not None else None
    terms = state.definition.terms if state.definition is not None else None
    return terms if own is None else money.merged(terms, own)


def _unpaid(state: State, breach: Breach) -> TurnCompleted:
    return _completed(state, "error", Failure(code=breach.code, message=breach.text))


def _by(said: Said | Verdict) -> str:
    return f"Denied by policy {said.policy} (version {said.version})"


def _next_call(state: State) -> ModelCalled:
    definition = state.definition or _NO_DEFINITION
    overrides = state.overrides
    return ModelCalled(
        call=f"m{state.calls + 1}",
        attempt=1,
        upto=state.version,
        image_version=definition.image_version,
        model=_model(state),
        context=show_digest(digest(state.thinks_with, state.items)),
        params=_params(state) if (overrides and overrides.params) or _cap(state) is not None else None,
    )


def _params(state: State) -> ModelParams:
    base = state.definition.params if state.definition else ModelParams()
    own = state.overrides.params if state.overrides else None
    if own is not None:
        wanted = {name: value for name in ModelParams.__struct_fields__ if (value := getattr(own, name)) is not None}
        base = replace(base, **wanted)
    cap = _cap(state)
    if cap is not None and (base.max_tokens is None or base.max_tokens > cap):
        base = replace(base, max_tokens=cap)
    return base


def _cap(state: State) -> int | None:
    """Most tokens that the rules let the job's model write in one call."""
    return None if state.rights is None else state.rights.model(_model(state)).tokens


def _model(state: State) -> str:
    """The model in force."""
    if state.selected is not None:
        return state.selected.model
    return (state.definition or _NO_DEFINITION).model


def _answer(state: State, message: AnswerModel) -> Sequence[Event]:
    if state.call is None or state.call.id != message.call or state.call.stuck:
        return ()
    answer = message.answer
    calls = [(index, part) for index, part in enumerate(answer.parts) if isinstance(part, ToolCall)]
    if len(calls) != len(message.checks):
        raise BadInput(f"The answer asks for {len(calls)} calls and comes with {len(message.checks)} checks.")
    events: list[Event] = [
        ModelAnswered(
            call=message.call,
            parts=answer.parts,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            model=answer.model,
            response_id=answer.response_id,
            stop_sequence=answer.stop_sequence,
            duration_ms=message.duration_ms,
            cost=message.cost,
        )
    ]
    put = 0  # questions of this answer
    no_run = state.stopping is not None or answer.stop_reason in NO_RUN or _spent(state)
    means = None if no_run else _means(state, message)
    for number, ((index, part), check) in enumerate(zip(calls, message.checks, strict=True), start=state.tools + 1):
        tool = f"t{number}"
        events.append(
            ToolRequested(
                tool=tool,
                call=message.call,
                part=index,
                name=part.name,
                effect=check.effect,
                timeout_s=check.timeout_s,
                version=check.version,
                problem=check.problem,
            )
        )
        if check.problem is not None:
            events.append(ToolSettled(tool=tool, outcome="error", output=check.problem, error_type="BadCall"))
        elif no_run:
            events.append(ToolSettled(tool=tool, outcome="skipped", output=SKIPPED))
        else:
            begun = _permitted(state, tool, number, part, check, put)
            events += begun if means is None else means.paid(tool, begun)
            put += bool(events) and isinstance(events[-1], ActionRequired)
    return events if means is None else [*events, *means.asks()]


class _Means:
    """What the budgets leave for the calls of tools of one answer, as they are gone through one by one."""

    def __init__(self, purse: Purse, terms: MoneyTerms) -> None:
        self._purse = purse
        self._terms = terms
        self._asked = 0
        self._begun = 0
        self._waiting: list[str] = []

    def paid(self, tool: str, begun: Sequence[Event]) -> Sequence[Event]:
        """What becomes of a call that would begin with these events: so, or it waits for the ledger, or is denied."""
        asks = any(isinstance(event, ActionRequired) for event in begun)
        starts = any(isinstance(event, ToolStarted) for event in begun)
        if not asks and not starts:
            return begun  # a rule forbids it already
        self._asked += 1
        breach = money.tool_breach(self._purse, self._terms, self._asked)
        if breach is not None:
            return [BudgetExceeded(breach=breach, tools=(tool,)), _not_funded(tool, breach)]
        if asks:
            return begun  # it is counted when it starts
        left = self._terms.ledger is None or self._purse.left.tools > self._begun
        if left or any(isinstance(event, GrantUsed) for event in begun):
            self._begun += 1
            return begun
        self._waiting.append(tool)
        return ()

    def asks(self) -> Sequence[Event]:
        """What the ledger is asked for, for those that wait. What the session still has is asked for again with it."""
        if not self._waiting or self._terms.ledger is None:
            return ()
        after = replace(self._purse, spent=self._purse.spent + Amount(tools=self._begun))
        least = Amount(tools=len(self._waiting))
        want = after.left + least + Amount(tools=money.TOOLS_AHEAD)
        return [money.wanted(after, self._terms.ledger, want, least, tools=tuple(self._waiting))]


def _means(state: State, message: AnswerModel) -> _Means | None:
    terms = _money_terms(state)
    if terms is None:
        return None
    purse = state.purse or money.EMPTY
    settled = money.settled(purse, message.call, message.answer.usage, message.cost, purse.now)
    return _Means(settled or purse, terms)


def _not_funded(tool: str, breach: Breach) -> ToolSettled:
    return ToolSettled(tool=tool, outcome="denied", output=f"Not run: {breach.text}", error_type="BudgetExceeded")


def _permitted(state: State, tool: str, number: int, part: ToolCall, check: CallCheck, put: int) -> Sequence[Event]:
    """A call that may begin begins; one that a rule forbids is told so; for one that a person must approve, they are
    asked. number: of the call in the session. put: questions of this answer so far.
    """
    rule, decision, reason = None, "allow", why_asked(state.definition, check)
    if state.rights is not None:
        verdict = state.rights.tool(part.name)
        said = _forbids(state.rights, verdict, number - state.before)
        if said is not None:
            return _refused(tool, said, said.reason, "The call was not run")
        rule = None if verdict.rule is None else f"{verdict.policy}/{verdict.rule}"
        decision = str(verdict.decision.value)
        if verdict.decision is PolicyDecision.REQUIRE_APPROVAL:
            reason = f"policy {rule}"
    if reason is not None:
        return _approval(state, tool, part, check, reason, put)
    return [
        ToolAuthorised(tool=tool, decision=decision, rule=rule),
        ToolStarted(tool=tool, attempt=1, arguments=check.arguments),
    ]


def _forbids(rights: Rights, verdict: Verdict, ordinal: int) -> Said | Verdict | None:
    """The rule that forbids a call, the `ordinal`th that its turn asks for."""
    if verdict.decision is PolicyDecision.DENY:
        return verdict
    limit = rights.limits.tool_calls_per_turn
    return limit[1] if limit is not None and ordinal > limit[0] else None


def _refused(
    tool: str, said: Said | Verdict, reason: str, outcome: str, *, attempt: int = 1, settled: str = "denied"
) -> Sequence[Event]:
    denied = ToolDenied(
        tool=tool, rule=said.rule or "", reason=reason, policy=said.policy, version=said.version, attempt=attempt
    )
    output = f"{_by(said)}: {reason}. {outcome}."
    return [denied, ToolSettled(tool=tool, outcome=settled, output=output, error_type="PolicyDenied")]


def _approval(state: State, tool: str, part: ToolCall, check: CallCheck, reason: str, put: int) -> list[Event]:
    """What becomes of a call that a person must approve: it starts on a leave given before, or it is asked for."""
    definition = state.definition
    policy = policy_digest(state.rights)
    place = check.place or Place()
    grant = granted(state.grants, check, part.name, part.input, policy)
    if grant is not None:
        return [
            GrantUsed(grant=grant.action, tool=tool, place=place),
            ToolAuthorised(tool=tool, rule=f"grant {grant.action}"),
            ToolStarted(tool=tool, attempt=1, arguments=check.arguments),
        ]
    if put >= APPROVALS_MAX:
        return [ToolSettled(tool=tool, outcome="denied", output=CROWDED, error_type=FULL)]
    action = f"a{state.actions + put + 1}"
    wait_s = APPROVAL_TIMEOUT_S if definition is None else definition.approval_timeout_s
    terms = Terms(
        session=state.session_id,
        action=action,
        tool=tool,
        name=part.name,
        version=check.version,
        arguments=part.input,
        effect=check.effect,
        timeout_s=check.timeout_s,
        place=place,
        policy=policy,
        timeout_ms=round(wait_s * 1000),
    )
    asked = ActionRequired(
        action=action,
        kind="approval",
        timeout_ms=terms.timeout_ms,
        job_id=state.job_id,
        tool=tool,
        reason=reason,
        digest=terms_digest(terms),
        place=place,
        policy=policy,
    )
    return [asked]


def _terms(state: State, tool: Tool, approval: Approval) -> Terms:
    """What a waiting call's approval covers, from what is known of the call."""
    return Terms(
        session=state.session_id,
        action=approval.action,
        tool=tool.id,
        name=tool.name,
        version=tool.version,
        arguments=tool.input,
        effect=tool.effect,
        timeout_s=tool.timeout_s,
        place=approval.place,
        policy=approval.policy,
        timeout_ms=approval.timeout_ms,
    )


def _waiting(state: State, action: str, status: str = "waiting") -> Tool | None:
    """The call that waits for this action."""
    for each in state.open:
        if each.approval is not None and each.approval.action == action and each.status == status:
            return each
    return None


def _may_resolve(state: State, message: ResolveAction) -> Sequence[Event]:
    """Whether the leave for calls to come that a person gives is one that they may give."""
    always = message.resolution.get("always")
    tool = _waiting(state, message.action)
    if always is None or tool is None:
        return ()
    if always == "class" and tool.effect != "read":
        raise BadResolution(
            f"Only a tool declared effect='read' may always run; {tool.name} is {tool.effect}. Allow exactly this call"
            " for good with always=exact."
        )
    if len(state.grants) >= GRANTS_MAX:
        raise Full(f"This session keeps {GRANTS_MAX:,} leaves for calls to come, its most; revoke one first.")
    return ()


def _resolved(state: State, message: ActionResolved) -> Sequence[Event]:
    tool = _waiting(state, message.action)
    if tool is None:
        if not _holds(state, message.action):
            return ()
        return _think(state) if message.resolution.get("approved") is True else _unthinkable(state, DENIED_MODEL)
    if message.resolution.get("approved") is True:
        return [ToolAuthorised(tool=tool.id, rule=f"approval {message.action}")]
    comment = message.resolution.get("comment")
    said = f"{DENIED} They say: {comment}" if comment else DENIED
    return [ToolSettled(tool=tool.id, outcome="denied", output=said, error_type="Denied")]


def _holds(state: State, action: str) -> bool:
    """Whether the agent waits for this action before it thinks on."""
    return state.held is not None and state.held[0] == action and state.job_id is not None and state.stopping is None


def _unthinkable(state: State, reason: str) -> Sequence[Event]:
    """A person did not allow the model: the turn is over."""
    call = _next_call(state)
    said = Verdict() if state.rights is None else state.rights.model(call.model)
    return _no_model(state, call, said, reason)


def _unresolved(state: State, message: ActionExpired | ActionCancelled) -> Sequence[Event]:
    tool = _waiting(state, message.action)
    if isinstance(message, ActionCancelled) and message.cancel_job:
        return ()  # the end of the job settles it
    if tool is None:
        return _unthinkable(state, UNANSWERED_MODEL) if _holds(state, message.action) else ()
    if isinstance(message, ActionExpired):
        return [ToolSettled(tool=tool.id, outcome="denied", output=EXPIRED, error_type="ApprovalExpired")]
    return [ToolSettled(tool=tool.id, outcome="denied", output=TAKEN_BACK, error_type="ApprovalCancelled")]


def _start(state: State, message: StartTool) -> Sequence[Event]:
    """An approved call may begin only as what it was approved to be, and in time."""
    tool = _tool(state, message.tool)
    if tool is None or tool.status != "authorised" or tool.approval is None or tool.attempt != message.attempt:
        return ()
    checked = ToolChecked(
        tool=tool.id,
        attempt=message.attempt,
        at=message.at,
        version=message.version,
        effect=message.effect,
        timeout_s=message.timeout_s,
        place=message.place,
        problem=message.problem,
    )
    changed = _changed(state, tool, tool.approval, checked)
    if changed is None:
        return [checked, _begin(tool)]
    if tool.attempt:
        output = f"{UNKNOWN} It was not begun again: since a person allowed it, {changed}."
        return [checked, ToolSettled(tool=tool.id, outcome="unknown", output=output, error_type="ApprovalChanged")]
    output = f"Not run: a person allowed this call, but since then {changed}."
    return [checked, ToolSettled(tool=tool.id, outcome="denied", output=output, error_type="ApprovalChanged")]


def _changed(state: State, tool: Tool, approval: Approval, now: ToolChecked) -> str | None:
    """Why an approval does not cover what would run now, None where it does."""
    terms = _terms(state, tool, approval)
    if terms_digest(terms) != approval.digest:
        return "the call is not the one that was approved"
    if now.at >= approval.expires_at:
        return "the approval has expired"
    if now.at < approval.asked_at:
        return "the clock was set back, so that nobody can tell whether the approval still holds"
    if approval.granted and all(grant.action != approval.action for grant in state.grants):
        return "the leave for it was taken back"
    return what_changed(terms, now, policy_digest(state.rights))


def _revoke(state: State, message: RevokeGrant) -> Sequence[Event]:
    if any(grant.action == message.action for grant in state.grants):
        return [GrantRevoked(grant=message.action, by=message.by)]
    return ()


def _spent(state: State) -> bool:
    return state.definition is not None and state.steps >= min(state.definition.max_steps, _turns(state))


def _turns(state: State) -> int:
    """Most model calls of this run as its budget has it."""
    terms = _money_terms(state)
    spec = terms.spec if terms is not None else None
    return spec.max_turns if spec is not None and spec.max_turns is not None else money.UNBOUNDED


def _answered(state: State, message: ModelAnswered) -> Sequence[Event]:
    return () if state.open else _proceed(state)


def _proceed(state: State) -> Sequence[Event]:
    """What follows when an answer and all that it asked for are in the log."""
    stop_reason = state.stop_reason
    if state.stopping is not None:
        return [_completed(state, "interrupted")]
    if stop_reason == "context_exceeded":
        failure = Failure(code="context_exceeded", message="The conversation is longer than the model can read.")
        return [_completed(state, "error", failure)]
    if state.purse is not None and state.purse.breach is not None:
        return [_unpaid(state, state.purse.breach)]
    if stop_reason != "refusal" and (state.asked or stop_reason == "pause_turn"):
        return _too_many(state) if _spent(state) else _think(state)
    return [_completed(state, "completed")]


def _too_many(state: State) -> Sequence[Event]:
    turns = _turns(state)
    if state.steps >= turns:
        breach = Breach(limit="max_turns", of="run", used=state.steps, wanted=1, most=turns)
        return [BudgetExceeded(breach=breach), _unpaid(state, breach)]
    failure = Failure(code="max_steps", message=f"The turn was ended after {state.steps} model calls, its limit.")
    return [_completed(state, "error", failure)]


def _completed(state: State, reason: str, failure: Failure | None = None) -> TurnCompleted:
    return TurnCompleted(
        turn=state.turn, reason=reason, stop_reason=state.stop_reason, failure=failure, steps=state.steps
    )


def _fail(state: State, message: FailModel) -> Sequence[Event]:
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


def _selection_of(event: ModelSelected) -> Selection:
    return Selection(model=event.model, reason=event.reason, key=event.key, because=event.because)


def _failed(state: State, message: ModelFailed) -> Sequence[Event]:
    if message.advance:
        return ()
    if message.retry_in_ms is not None:
        return _called(state, _again(state, message.retry_in_ms))
    if state.stopping is not None or message.failure.code == "cancelled":
        return [_completed(state, "interrupted")]
    failure = selection.summary(state.tried, message.failure) if message.exhausted else message.failure
    return [_completed(state, "error", failure)]


def _select(state: State, message: SelectModel) -> Sequence[Event]:
    call = state.call
    if call is None or call.id != message.call or call.attempt != message.attempt or call.stuck:
        return ()
    if state.stopping is not None:  # it was not asked, and is not any more
        return [ModelFailed(call=call.id, attempt=call.attempt, failure=NOT_ASKED)]
    return [_selection(message.select, call)]


def _selected(state: State, message: ModelSelected) -> Sequence[Event]:
    """The model that is selected is called: as the next step of a turn, or as the next attempt at a call."""
    return () if state.job_id is None or state.open else _think(state)


def _again(state: State, wait_ms: int = 0) -> ModelCalled:
    assert state.call is not None
    called = _next_call(state)
    return replace(called, call=state.call.id, attempt=state.call.attempt + 1, upto=state.call.upto, wait_ms=wait_ms)


def _settle(state: State, message: SettleTool) -> Sequence[Event]:
    tool = _tool(state, message.tool)
    if tool is None or tool.status != "started":
        return ()
    if message.outcome == "unknown" and state.stopping is None and tool.effect not in ("read", "idempotent"):
        # Its runner lives, and so may the call: asking the world now could be too early. A person must say.
        return [ToolDoubted(tool=tool.id, attempt=tool.attempt), ToolUnproved(tool=tool.id)]
    return [
        ToolSettled(
            tool=tool.id,
            outcome=message.outcome,
            output=message.output,
            error_type=message.error_type,
            duration_ms=message.duration_ms,
            dropped_bytes=message.dropped_bytes,
        )
    ]


def _settled(state: State, message: ToolSettled) -> Sequence[Event]:
    return () if state.open or state.call is not None or state.job_id is None else _proceed(state)


def _stopping(state: State, message: JobStopping) -> Sequence[Event]:
    ends: list[Event] = []
    for tool in state.open:
        if tool.status in ("doubted", "unproved"):
            ends.append(ToolSettled(tool=tool.id, outcome="unknown", output=UNKNOWN))
        elif tool.status != "started":
            ends.append(ToolSettled(tool=tool.id, outcome="skipped", output=SKIPPED))
    idle = state.call is None or state.call.stuck
    if not ends and not state.open and idle and state.job_id is not None:
        return [_completed(state, "interrupted")]
    return ends


def _sleep(state: State, message: StopAgent | CloseSession) -> Sequence[Event]:
    if state.agent_id is None:
        return ()
    return [AgentUnregistered(container_id=state.container_id or "", agent_id=state.agent_id, reason=message.reason)]


# -- money --


def _take(state: State, message: TakeAllotment) -> Sequence[Event]:
    purse = state.purse
    if purse is None or purse.asking is None or purse.asking.ask != message.ask:
        return ()
    asking, taken = purse.asking, AllotmentTaken(ask=message.ask, grant=message.grant)
    events: list[Event] = [taken]
    if message.grant.warned and message.grant.warned != purse.warned:
        events.append(BudgetWarned(limits=message.grant.warned))
    if state.stopping is not None:
        return events
    if asking.tools:
        waiting = [tool for tool in state.open if tool.id in asking.tools]
        return [*events, *(event for tool in waiting for event in _funded(state, tool))]
    return [*events, *_think(replace(state, purse=money.taken(purse, taken, purse.now)), asking.wait_ms)]


def _funded(state: State, tool: Tool) -> Sequence[Event]:
    """A call that waited for the ledger begins, where the rules of the moment still let it."""
    verdict = Verdict() if state.rights is None else state.rights.tool(tool.name)
    if verdict.decision in _SHUT:
        return _refused(tool.id, verdict, verdict.reason, "The call was not run")
    rule = None if verdict.rule is None else f"{verdict.policy}/{verdict.rule}"
    return [ToolAuthorised(tool=tool.id, decision=str(verdict.decision.value), rule=rule), _run(tool)]


def _refuse(state: State, message: RefuseAllotment) -> Sequence[Event]:
    purse = state.purse
    if purse is None or purse.asking is None or purse.asking.ask != message.ask:
        return ()
    waiting = tuple(tool.id for tool in state.open if tool.id in purse.asking.tools)
    exceeded = BudgetExceeded(breach=message.breach, ask=message.ask, tools=waiting)
    if purse.asking.tools:
        return [exceeded, *(_not_funded(tool, message.breach) for tool in waiting)]
    return [exceeded, _unpaid(state, message.breach)]


def _release(state: State, message: ReleaseAllotment) -> Sequence[Event]:
    released = money.release(state.purse, message.ask)
    return () if released is None else [released]


def _closed(state: State, message: SessionClosed | TurnCompleted) -> Sequence[Event]:
    """A session that is closed needs no more than what is under way."""
    released = money.release(state.purse) if state.purse is not None and state.purse.closing else None
    return () if released is None else [released]


def _recover(state: State, message: RecoverEffect) -> Sequence[Event]:
    call = state.call
    if call is not None and call.id == message.effect:
        there = call.attempt == message.attempt and state.stopping is None and not call.stuck
        return _called(state, _again(state)) if there else ()
    tool = _tool(state, message.effect)
    if tool is None or tool.status != "started" or tool.attempt != message.attempt or state.stopping is not None:
        return ()
    if tool.effect in ("read", "idempotent"):
        return _run_again(state, tool, "error" if tool.effect == "read" else "unknown")
    doubted = ToolDoubted(tool=tool.id, attempt=tool.attempt)
    return [doubted] if tool.effect == "probeable" else [doubted, ToolUnproved(tool=tool.id)]


def _run_again(state: State, tool: Tool, settled: str) -> Sequence[Event]:
    """Another attempt, where the rules of the moment let it begin. settled: how it ends where they do not."""
    verdict = _forbidden(state, tool)
    if verdict is None:
        return [_run(tool)]
    ended = "It began before, and was not run again"
    return _refused(tool.id, verdict, verdict.reason, ended, attempt=tool.attempt + 1, settled=settled)


def _forbidden(state: State, tool: Tool) -> Verdict | None:
    """What forbids another attempt of a call: a rule, or a rule that asks for an approval which the call has not."""
    if state.rights is None:
        return None
    verdict = state.rights.tool(tool.name)
    if verdict.decision is PolicyDecision.REQUIRE_APPROVAL and tool.approval is not None:
        return None
    return verdict if verdict.decision in _SHUT else None


def _run(tool: Tool) -> ToolStarted | ToolRelaunched:
    """Begin again. What a person approved is looked at again first: it may be another tool by now."""
    return _begin(tool) if tool.approval is None else ToolRelaunched(tool=tool.id, attempt=tool.attempt)


def _begin(tool: Tool) -> ToolStarted:
    return ToolStarted(tool=tool.id, attempt=tool.attempt + 1, arguments=arguments_digest(tool.input))


def _prove(state: State, message: ProveTool) -> Sequence[Event]:
    tool = _tool(state, message.tool)
    if tool is None or tool.status != "doubted":
        return ()
    if message.happened is None:
        return [ToolUnproved(tool=tool.id)]
    if message.happened:
        return [ToolSettled(tool=tool.id, outcome="ok", output=message.output, proof="probe")]
    return _run_again(state, tool, "error")


def _resolve(state: State, message: ResolveTool) -> Sequence[Event]:
    tool = _tool(state, message.tool)
    if tool is None:
        if _was(state, message.tool):
            return ()
        raise NotFound(f"There is no call {message.tool} in this session.")
    if tool.status != "unproved":
        raise BadInput(f"Call {tool.id} is not in doubt: it is {tool.status}.")
    if message.outcome == "retry":
        verdict = _forbidden(state, tool)
        if verdict is not None:
            raise PolicyDenied(f"{_by(verdict)}: {verdict.reason}. Settle the call as ok or error.", verdict.violations)
        return [_run(tool)]
    if message.outcome not in ("ok", "error"):
        raise BadInput(f"A call is settled as ok, error or retry, not as {message.outcome!r}.")
    return [ToolSettled(tool=tool.id, outcome=message.outcome, output=message.output, proof="person")]


def _was(state: State, tool: str) -> bool:
    """Whether a call of this name was ever asked for."""
    number = tool[1:]
    is_number = number.isascii() and number.isdigit() and len(number) < 20
    return is_number and tool == f"t{int(number)}" and 0 < int(number) <= state.tools


def _tool(state: State, tool: str) -> Tool | None:
    return next((each for each in state.open if each.id == tool), None)


_DECIDE: dict[type, Any] = {
    Send: _wake,
    WakeAgent: _wake,
    JobStarted: _start_turn,
    AnswerModel: _answer,
    ModelAnswered: _answered,
    FailModel: _fail,
    ModelFailed: _failed,
    SelectModel: _select,
    ModelSelected: _selected,
    SettleTool: _settle,
    ToolSettled: _settled,
    JobStopping: _stopping,
    StopAgent: _sleep,
    CloseSession: _sleep,
    RecoverEffect: _recover,
    ProveTool: _prove,
    ResolveTool: _resolve,
    ApplyPolicy: _apply,
    StartTool: _start,
    ResolveAction: _may_resolve,
    ActionResolved: _resolved,
    ActionExpired: _unresolved,
    ActionCancelled: _unresolved,
    RevokeGrant: _revoke,
    TakeAllotment: _take,
    RefuseAllotment: _refuse,
    ReleaseAllotment: _release,
    SessionClosed: _closed,
    TurnCompleted: _closed,
}


# -- evolve --


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    become = _EVOLVE.get(type(event))
    if become is None:
        return replace(state, version=stamp.version)
    changed: State = become(state, event, stamp)
    return changed


def _on_created(state: State, event: SessionCreated, stamp: Stamp) -> State:
    return replace(
        state,
        version=stamp.version,
        session_id=event.session_id,
        image_id=event.image_id,
        container_id=event.container_id,
        items=stamp.digest,
    )


def _on_queued(state: State, event: JobQueued, stamp: Stamp) -> State:
    queued = event.job_id, stamp.digest, money.tokens_in(event.content)
    return replace(state, version=stamp.version, queued=(*state.queued, queued))


def _on_gone(state: State, event: JobCancelled | JobTimedOut, stamp: Stamp) -> State:
    queued = tuple(each for each in state.queued if each[0] != event.job_id)
    return replace(state, version=stamp.version, queued=queued)


def _on_job(state: State, event: JobStarted, stamp: Stamp) -> State:
    mine, tokens = next(((each[1], each[2]) for each in state.queued if each[0] == event.job_id), (b"", 0))
    own = event.overrides is not None and event.overrides.terms is not None
    counts = own or (state.definition is not None and state.definition.terms is not None)
    return replace(
        state,
        version=stamp.version,
        items=digest(state.items, mine),
        queued=tuple(each for each in state.queued if each[0] != event.job_id),
        job_id=event.job_id,
        overrides=event.overrides,
        stopping=None,
        stop_reason=None,
        asked=0,
        steps=0,
        before=state.tools,
        held=None,
        allowed=(),
        rights=state.rights if event.overrides is None else _rights(state.definition, event.overrides),
        fresh=state.fresh + tokens,
        purse=money.began(state.purse, stamp.at, counts=counts),
    )


def _rights(definition: Definition | None, overrides: Overrides | None) -> Rights | None:
    """What the rules leave: those of the definition, and what the job narrows."""
    layers = () if definition is None else definition.policy
    if overrides is not None and overrides.policy is not None:
        layers = (*layers, overrides.policy)
    return rights_of(layers, definition.scope if definition else "default") if layers else None


def _on_registered(state: State, event: AgentRegistered, stamp: Stamp) -> State:
    return replace(
        state,
        version=stamp.version,
        agent_id=event.agent_id,
        last_agent=event.agent_id,
        container_id=event.container_id,
        image_id=event.image_id,
    )


def _on_configured(state: State, event: AgentConfigured, stamp: Stamp) -> State:
    wanted, had = event.definition, state.definition
    selected = state.selected
    if selected is not None and (had is None or (wanted.model, wanted.fallbacks) != (had.model, had.fallbacks)):
        selected = None  # what is asked for now is asked
    return replace(
        state,
        version=stamp.version,
        definition=wanted,
        thinks_with=stamp.digest,
        rights=_rights(wanted, state.overrides),
        selected=selected,
    )


def _on_unregistered(state: State, event: AgentUnregistered, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, agent_id=None)


def _on_turn(state: State, event: TurnStarted, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, turn=event.turn)


def _on_called(state: State, event: ModelCalled, stamp: Stamp) -> State:
    not_before = stamp.at + event.wait_ms * 1000 if event.wait_ms else 0
    if event.attempt > 1:
        tried = state.call.tried if state.call is not None else ()
        again = Call(event.call, event.attempt, event.upto, stamp.epoch, not_before, event.model, tried)
        return replace(state, version=stamp.version, call=again)
    call = Call(event.call, 1, event.upto, stamp.epoch, not_before, event.model)
    return replace(state, version=stamp.version, call=call, calls=state.calls + 1, steps=state.steps + 1)


def _on_selected(state: State, event: ModelSelected, stamp: Stamp) -> State:
    selected = selection.after(event, state.definition or _NO_DEFINITION, state.overrides, state.job_id)
    call = state.call if state.call is None else replace(state.call, stuck=True)
    purse = state.purse
    if purse is not None and purse.held is not None:
        # Another model is asked in its place. One that was chosen before it was asked cost nothing; one that a budget
        # chose takes the place of a call in doubt, which is spent as it was set aside.
        purse = replace(purse, spent=purse.at_most if event.reason == "budget" else purse.spent, held=None)
    return replace(state, version=stamp.version, selected=selected, call=call, purse=purse)


def _on_answered(state: State, event: ModelAnswered, stamp: Stamp) -> State:
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


def _on_failed(state: State, event: ModelFailed, stamp: Stamp) -> State:
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


def _on_requested(state: State, event: ToolRequested, stamp: Stamp) -> State:
    return _with_tool(
        state,
        event.tool,
        stamp,
        status="requested",
        effect=event.effect,
        timeout_s=event.timeout_s,
        version=event.version,
    )


def _on_required(state: State, event: ActionRequired, stamp: Stamp) -> State:
    state = replace(state, actions=state.actions + 1)
    if event.digest is None:
        return replace(state, version=stamp.version)
    if event.tool is None:
        return replace(state, version=stamp.version, held=(event.action, event.payload.get("model", ""), event.policy))
    approval = Approval(
        action=event.action,
        digest=event.digest,
        asked_at=stamp.at,
        expires_at=stamp.at + event.timeout_ms * 1000,
        timeout_ms=event.timeout_ms,
        place=event.place or Place(),
        policy=event.policy,
    )
    return _with_tool(state, event.tool, stamp, status="waiting", approval=approval)


def _on_resolved(state: State, event: ActionResolved, stamp: Stamp) -> State:
    tool = _waiting(state, event.action)
    if event.resolution.get("approved") is not True:
        return replace(state, version=stamp.version)
    if tool is None:
        held = state.held
        allowed = (*state.allowed, held[1:]) if held is not None and held[0] == event.action else state.allowed
        return replace(state, version=stamp.version, allowed=allowed)
    approval = tool.approval
    assert approval is not None
    arguments, always = event.resolution.get("arguments"), event.resolution.get("always")
    if arguments is not None:
        tool = replace(tool, input=arguments)
        edited = replace(approval, digest=terms_digest(_terms(state, tool, approval)))
        # What the model is told of the call names the change, so this is a part of what it sees.
        state = _with_tool(state, tool.id, stamp, input=arguments, approval=edited)
        state = replace(state, items=digest(state.items, stamp.digest))
    if always is not None:
        grant = Grant(
            action=event.action,
            kind=always,
            name=tool.name,
            version=tool.version,
            digest=grant_digest(tool.name, tool.version, tool.input, approval.place, approval.policy),
            by=event.by,
        )
        state = replace(state, grants=(*state.grants, grant))
    return replace(state, version=stamp.version)


def _on_granted(state: State, event: GrantUsed, stamp: Stamp) -> State:
    tool = _tool(state, event.tool)
    if tool is None:
        return replace(state, version=stamp.version)
    wait_s = APPROVAL_TIMEOUT_S if state.definition is None else state.definition.approval_timeout_s
    approval = Approval(
        action=event.grant,
        digest="",
        asked_at=stamp.at,
        expires_at=stamp.at + round(wait_s * 1_000_000),
        timeout_ms=round(wait_s * 1000),
        place=event.place,
        policy=policy_digest(state.rights),
        granted=True,
    )
    approval = replace(approval, digest=terms_digest(_terms(state, tool, approval)))
    return _with_tool(state, event.tool, stamp, approval=approval)


def _on_revoked(state: State, event: GrantRevoked, stamp: Stamp) -> State:
    grants = tuple(grant for grant in state.grants if grant.action != event.grant)
    return replace(state, version=stamp.version, grants=grants)


def _on_relaunched(state: State, event: ToolRelaunched, stamp: Stamp) -> State:
    return _with_tool(state, event.tool, stamp, status="authorised")


def _on_authorised(state: State, event: ToolAuthorised, stamp: Stamp) -> State:
    return _with_tool(state, event.tool, stamp, status="authorised")


def _on_started(state: State, event: ToolStarted, stamp: Stamp) -> State:
    begun = _with_tool(state, event.tool, stamp, status="started", attempt=event.attempt, epoch=stamp.epoch)
    if state.purse is None or event.attempt > 1:
        return begun
    return replace(begun, purse=money.tool_begun(state.purse, stamp.at))


def _on_doubted(state: State, event: ToolDoubted, stamp: Stamp) -> State:
    return _with_tool(state, event.tool, stamp, status="doubted")


def _on_unproved(state: State, event: ToolUnproved, stamp: Stamp) -> State:
    return _with_tool(state, event.tool, stamp, status="unproved")


def _with_tool(state: State, tool: str, stamp: Stamp, **changes: Any) -> State:
    return replace(
        state,
        version=stamp.version,
        open=tuple(replace(each, **changes) if each.id == tool else each for each in state.open),
    )


def _on_settled(state: State, event: ToolSettled, stamp: Stamp) -> State:
    return replace(
        state,
        version=stamp.version,
        items=digest(state.items, stamp.digest),
        open=tuple(each for each in state.open if each.id != event.tool),
        fresh=state.fresh + _tokens_of(event.output),
        purse=money.ticked(state.purse, stamp.at),
    )


def _tokens_of(output: ToolOutput) -> int:
    return 8 + (money.tokens_of(output) if isinstance(output, str) else money.tokens_in(output))


def _on_completed(state: State, event: TurnCompleted, stamp: Stamp) -> State:
    own = state.overrides is not None and state.overrides.policy is not None
    return replace(
        state,
        version=stamp.version,
        job_id=None,
        overrides=None,
        stopping=None,
        call=None,
        open=(),
        held=None,
        rights=_rights(state.definition, None) if own else state.rights,
        purse=money.ended(state.purse, stamp.at),
    )


def _on_stopping(state: State, event: JobStopping, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, stopping=event.reason)


def _on_reserved(state: State, event: BudgetReserved, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, purse=money.reserved(state.purse, event, stamp.at))


def _on_wanted(state: State, event: AllotmentWanted, stamp: Stamp) -> State:
    call = state.call if state.call is None or event.tools else replace(state.call, stuck=True)
    return replace(state, version=stamp.version, call=call, purse=money.asked(state.purse, event, stamp.at))


def _on_taken(state: State, event: AllotmentTaken, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, purse=money.taken(state.purse, event, stamp.at))


def _on_exceeded(state: State, event: BudgetExceeded, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, purse=money.exceeded(state.purse, event))


def _on_released(state: State, event: AllotmentReleased, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, purse=money.released(state.purse, event))


def _on_closed(state: State, event: SessionClosed, stamp: Stamp) -> State:
    purse = state.purse if state.purse is None else replace(state.purse, closing=True)
    return replace(state, version=stamp.version, purse=purse)


_EVOLVE: dict[type, Any] = {
    SessionCreated: _on_created,
    JobQueued: _on_queued,
    JobStarted: _on_job,
    JobStopping: _on_stopping,
    JobCancelled: _on_gone,
    JobTimedOut: _on_gone,
    AgentRegistered: _on_registered,
    AgentConfigured: _on_configured,
    AgentUnregistered: _on_unregistered,
    TurnStarted: _on_turn,
    TurnCompleted: _on_completed,
    ModelSelected: _on_selected,
    ModelCalled: _on_called,
    ModelAnswered: _on_answered,
    ModelFailed: _on_failed,
    ToolRequested: _on_requested,
    ToolAuthorised: _on_authorised,
    ToolStarted: _on_started,
    ToolDoubted: _on_doubted,
    ToolUnproved: _on_unproved,
    ToolSettled: _on_settled,
    ToolRelaunched: _on_relaunched,
    ActionRequired: _on_required,
    ActionResolved: _on_resolved,
    GrantUsed: _on_granted,
    GrantRevoked: _on_revoked,
    BudgetReserved: _on_reserved,
    AllotmentWanted: _on_wanted,
    AllotmentTaken: _on_taken,
    BudgetExceeded: _on_exceeded,
    AllotmentReleased: _on_released,
    SessionClosed: _on_closed,
}


# -- owed --


def owed(state: State) -> Sequence[Effect]:
    if state.purse is None or state.job_id is None or state.stopping is not None:
        return _owed(state)
    return [*_owed_for(state, state.purse), *_owed(state)]


def _owed_for(state: State, purse: Purse) -> Sequence[Effect]:
    """What is owed under a budget: the end of the time that the run has, and the asking for more."""
    effects: list[Effect] = []
    terms = _money_terms(state)
    spec = terms.spec if terms is not None else None
    if spec is not None and spec.max_runtime_seconds is not None:
        at = purse.began_at + int(spec.max_runtime_seconds * 1_000_000)
        effects.append(WakeAt(id=f"runtime-{state.job_id}", job_id=state.job_id or "", at=at))
    asking = purse.asking
    if asking is not None:
        effects.append(
            RequestAllotment(
                id=asking.ask,
                ledger=asking.ledger,
                session_id=state.session_id,
                spent=purse.spent,
                want=asking.want,
                least=asking.least,
                priced=asking.priced,
                at=asking.at,
            )
        )
    return effects


def _owed(state: State) -> Sequence[Effect]:
    call = state.call
    if call is not None:
        if state.stopping is not None:
            return (CancelEffect(id=f"stop-{call.id}", target=call.id, attempt=call.attempt, tool=False),)
        if call.stuck:
            return ()
        rights, selected = state.rights, state.selected
        params, held = _params(state), state.purse.held if state.purse is not None else None
        return (
            CallModel(
                id=call.id,
                model=call.model,
                upto=call.upto,
                image_version=state.definition.image_version if state.definition else 0,
                attempt=call.attempt,
                epoch=call.epoch,
                params=params if held is None else replace(params, max_tokens=held.max_tokens),
                not_before=call.not_before,
                policy=() if rights is None else rights.layers,
                scope="default" if rights is None else rights.scope,
                chain=_chain(state),
                key=None if selected is None else selected.key,
                reason="primary" if selected is None else selected.reason,
                tried=call.tried,
                step=state.steps,
            ),
        )
    if not state.open:
        return ()
    return [effect for tool in state.open if (effect := _owed_of(state, tool)) is not None]


def _chain(state: State) -> tuple[str, ...]:
    """The models that a call may go to, empty where there is only the one."""
    definition, overrides = state.definition or _NO_DEFINITION, state.overrides
    if not definition.fallbacks and (overrides is None or not overrides.fallbacks):
        return ()
    if state.selected is not None and state.selected.reason == "budget":
        return ()  # the others cost more than there is
    chain = selection.chain_of(definition, overrides)
    rights = state.rights
    if rights is not None:  # what the rules deny is no way out
        chain = (chain[0], *(model for model in chain[1:] if rights.model(model).decision not in _SHUT))
    return chain if len(chain) > 1 else ()


def _owed_of(state: State, tool: Tool) -> Effect | None:
    if tool.status == "started":
        if state.stopping is not None:
            return CancelEffect(
                id=f"stop-{tool.id}", target=tool.id, attempt=tool.attempt, tool=True, effect=tool.effect
            )
        return RunTool(
            id=tool.id,
            name=tool.name,
            call_id=tool.call_id,
            input=tool.input,
            key=f"{state.session_id}:{tool.id}",
            attempt=tool.attempt,
            effect=tool.effect,
            timeout_s=tool.timeout_s,
            epoch=tool.epoch,
            job_id=state.job_id,
        )
    if tool.status == "doubted":
        return ProbeTool(
            id=f"probe-{tool.id}",
            name=tool.name,
            call_id=tool.call_id,
            input=tool.input,
            key=f"{state.session_id}:{tool.id}",
            attempt=tool.attempt,
        )
    if tool.status == "authorised" and tool.approval is not None:
        return LaunchTool(id=f"launch-{tool.id}", tool=tool.id, name=tool.name, input=tool.input, attempt=tool.attempt)
    return None


# -- recall --


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    first = events[0]
    match asked, first:
        case "wake_agent", AgentRegistered() | AgentConfigured():
            waking = waking_of(events)
            return WakeAgent(waking=waking) if waking is not None else None
        case "apply_policy", AgentConfigured():
            return ApplyPolicy(policy=first.definition.policy, scope=first.definition.scope)
        case "stop_agent", AgentUnregistered() | JobStopping():
            return StopAgent(reason=first.reason)
        case "answer_model", ModelAnswered():
            return _recall_answer(first, events)
        case "select_model", ModelSelected():
            return SelectModel(call=first.call or "", attempt=first.attempt, select=_selection_of(first))
        case "select_model", ModelFailed():
            return SelectModel(call=first.call, attempt=first.attempt, select=Selection(model="", reason=""))
        case "fail_model", ModelFailed():
            second = events[1] if first.advance and len(events) > 1 else None
            return FailModel(
                call=first.call,
                attempt=first.attempt,
                failure=first.failure,
                partial=first.partial,
                usage=first.usage,
                retry_in_ms=first.retry_in_ms,
                duration_ms=first.duration_ms,
                cost=first.cost,
                key=first.key,
                select=_selection_of(second) if isinstance(second, ModelSelected) else None,
                exhausted=first.exhausted,
            )
        case "settle_tool", ToolSettled():
            return SettleTool(
                tool=first.tool,
                outcome=first.outcome,
                output=first.output,
                error_type=first.error_type,
                duration_ms=first.duration_ms,
                dropped_bytes=first.dropped_bytes,
            )
        case "settle_tool", ToolDoubted():
            return SettleTool(tool=first.tool, outcome="unknown", output="")
        case "recover_effect", ModelCalled():
            return RecoverEffect(effect=first.call, attempt=first.attempt - 1)
        case "recover_effect", ModelDenied():
            return RecoverEffect(effect=first.call, attempt=first.attempt - 1)
        case "recover_effect", BudgetDegraded():
            selected = next((event for event in events if isinstance(event, ModelSelected)), None)
            return None if selected is None else RecoverEffect(effect=first.call, attempt=selected.attempt)
        case "recover_effect", BudgetReserved():
            again = next((event for event in events if isinstance(event, ModelCalled)), None)
            return None if again is None else RecoverEffect(effect=again.call, attempt=again.attempt - 1)
        case "recover_effect", AllotmentWanted() | BudgetExceeded():
            return RecoverEffect(effect=first.call or "", attempt=first.attempt - 1)
        case "take_allotment", AllotmentTaken():
            return TakeAllotment(ask=first.ask, grant=first.grant)
        case "refuse_allotment", BudgetExceeded():
            return RefuseAllotment(ask=first.ask or "", breach=first.breach)
        case "release_allotment", AllotmentReleased():
            return ReleaseAllotment(ask=first.ask)
        case "recover_effect", ToolStarted() | ToolDenied():
            return RecoverEffect(effect=first.tool, attempt=first.attempt - 1)
        case "recover_effect", ToolRelaunched():
            return RecoverEffect(effect=first.tool, attempt=first.attempt)
        case "recover_effect", ToolDoubted():
            return RecoverEffect(effect=first.tool, attempt=first.attempt)
        case "prove_tool", ToolSettled():
            return ProveTool(tool=first.tool, happened=True, output=first.output)
        case "prove_tool", ToolStarted() | ToolDenied() | ToolRelaunched():
            return ProveTool(tool=first.tool, happened=False)
        case "prove_tool", ToolUnproved():
            return ProveTool(tool=first.tool, happened=None)
        case "resolve_tool", ToolSettled():
            return ResolveTool(tool=first.tool, outcome=first.outcome, output=_plain(first.output))
        case "resolve_tool", ToolStarted() | ToolRelaunched():
            return ResolveTool(tool=first.tool, outcome="retry")
        case "start_tool", ToolChecked():
            return StartTool(
                tool=first.tool,
                attempt=first.attempt,
                at=first.at,
                version=first.version,
                effect=first.effect,
                timeout_s=first.timeout_s,
                place=first.place,
                problem=first.problem,
            )
        case "revoke_grant", GrantRevoked():
            return RevokeGrant(action=first.grant, by=first.by)
    return None


def _plain(output: ToolOutput) -> str:
    return output if isinstance(output, str) else ""


def _recall_answer(first: ModelAnswered, events: Sequence[Event]) -> AnswerModel:
    started = {event.tool: event.arguments for event in events if isinstance(event, ToolStarted)}
    places = {event.tool: event.place for event in events if isinstance(event, ActionRequired | GrantUsed)}
    crowded = {event.tool for event in events if isinstance(event, ToolSettled) and event.error_type == FULL}
    checks = tuple(
        CallCheck(
            name=event.name,
            effect=event.effect,
            timeout_s=event.timeout_s,
            version=event.version,
            arguments=started.get(event.tool, ""),
            approval="ask" if event.tool in places or event.tool in crowded else "never",
            place=places.get(event.tool),
            problem=event.problem,
        )
        for event in events
        if isinstance(event, ToolRequested)
    )
    return AnswerModel(
        call=first.call,
        answer=ModelAnswer(
            parts=first.parts,
            stop_reason=first.stop_reason,
            usage=first.usage,
            model=first.model,
            response_id=first.response_id,
            stop_sequence=first.stop_sequence,
        ),
        checks=checks,
        duration_ms=first.duration_ms,
        cost=first.cost,
    )


AGENT = Decider("agent", State(), decide, evolve, owed, recall)
