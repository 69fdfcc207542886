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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.agent import (
    AgentConfigured,
    AgentRegistered,
    AgentUnregistered,
    AnswerModel,
    CallModel,
    CancelEffect,
    FailModel,
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
    StopAgent,
    ToolAuthorised,
    ToolDoubted,
    ToolOutput,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
    TurnStarted,
    WakeAgent,
)
from ..events.content import Failure, ToolCall, Tried
from ..events.errors import BadInput, NotFound, PolicyDenied
from ..events.message import Command, Effect, Event, Stamp, digest, show_digest
from ..events.model import ModelAnswer, ModelParams
from ..events.policy import ApplyPolicy, ModelDenied, ModelWarned, PolicyDecision, ToolDenied
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
    SessionCreated,
)
from ..events.tool import CallCheck, EffectClass, arguments_digest
from . import selection
from .decider import Decider
from .policy import Rights, Said, Verdict, rights_of
from .selection import Selected
from .session import waking_of

SKIPPED = "Not run: the turn was stopped before this call began."
INTERRUPTED = "Stopped while it ran: the turn was interrupted."
UNKNOWN = "It is not known whether this call took effect: the program stopped while it ran."
NO_APPROVALS = "a person would have to approve it, and approvals are not available"
NOT_ASKED = Failure(code="cancelled", message="Stopped before the model was asked.")
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


class Tool(Struct, frozen=True, gc=False):
    """A call without an end yet. status: asked, requested, authorised, started, doubted, unproved."""

    id: str
    call_id: str
    name: str
    input: dict[str, Any]
    status: str = "asked"
    effect: EffectClass = "unsafe"
    timeout_s: float = 60.0
    attempt: int = 0
    epoch: int = 0


class State(Struct, frozen=True, gc=False):
    """items: digest over the stored digests of the conversation's items. queued: those of inputs not in it yet.

    stop_reason, asked: of the last answer, and how many calls it asked for. steps: model calls of this turn.
    rights: what the rules leave, None where there are none. tools: calls of tools so far; before: those of other turns.
    selected: the model in force where it is not simply the definition's. tried: of the call that was given up last.
    """

    session_id: str = ""
    agent_id: str | None = None
    last_agent: str | None = None
    container_id: str | None = None
    image_id: str | None = None
    definition: Definition | None = None
    thinks_with: bytes = b""
    items: bytes = b""
    queued: tuple[tuple[str, bytes], ...] = ()
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
    return any(job_id == queued for queued, _ in state.queued)


def _start_turn(state: State, message: JobStarted) -> Sequence[Event]:
    begun = replace(state, turn=state.turn + 1)
    return [TurnStarted(turn=begun.turn, job_id=message.job_id), *_think(begun)]


def _think(state: State) -> Sequence[Event]:
    """The agent's next step of thinking: everything that must hold before a model is called comes in here.

    A call that goes on with another model comes in here too: then `state.call` is there, and stuck.
    """
    if state.selected is not None or state.overrides is not None:
        due = selection.due(state.selected, state.definition or _NO_DEFINITION, state.overrides, state.job_id)
        if due is not None:
            return [due]
    return _called(state, _next_call(state) if state.call is None else _again(state))


_NO_DEFINITION = Definition(image_version=0, model="")


def _called(state: State, call: ModelCalled) -> Sequence[Event]:
    """A call of a model, where the rules of the moment let it be made; else why not, and the end of the turn."""
    rights = state.rights
    if rights is None:
        return [call]
    turns = rights.limits.turns
    verdict = rights.model(call.model)
    said: Said | Verdict = verdict
    if turns is not None and state.turn > turns[0]:
        said = turns[1]
    if said.decision in _SHUT:
        reason = said.reason if said.decision is PolicyDecision.DENY else f"{said.reason}: {NO_APPROVALS}"
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
    if said.decision is PolicyDecision.WARN and not state.steps:
        warned = ModelWarned(
            call=call.call,
            model=call.model,
            rule=said.rule or "",
            reason=said.reason,
            policy=said.policy,
            version=said.version,
        )
        return [warned, call]
    return [call]


_SHUT = {PolicyDecision.DENY, PolicyDecision.REQUIRE_APPROVAL}


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
    no_run = state.stopping is not None or answer.stop_reason in NO_RUN or _spent(state)
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
            events += _permitted(state, tool, number, part.name, check)
    return events


def _permitted(state: State, tool: str, number: int, name: str, check: CallCheck) -> Sequence[Event]:
    """A call that may begin begins; one that a rule forbids is told so. number: of the call in the session."""
    rule, decision = None, "allow"
    if state.rights is not None:
        verdict = state.rights.tool(name)
        said = _forbids(state.rights, verdict, number - state.before)
        if said is not None:
            return _refused(tool, said, said.reason, "The call was not run")
        if verdict.decision is PolicyDecision.REQUIRE_APPROVAL:
            return _refused(tool, verdict, f"{verdict.reason}: {NO_APPROVALS}", "The call was not run")
        rule = None if verdict.rule is None else f"{verdict.policy}/{verdict.rule}"
        decision = str(verdict.decision.value)
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


def _spent(state: State) -> bool:
    return state.definition is not None and state.steps >= state.definition.max_steps


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
    if stop_reason != "refusal" and (state.asked or stop_reason == "pause_turn"):
        return [_too_many(state)] if _spent(state) else _think(state)
    return [_completed(state, "completed")]


def _too_many(state: State) -> TurnCompleted:
    failure = Failure(code="max_steps", message=f"The turn was ended after {state.steps} model calls, its limit.")
    return _completed(state, "error", failure)


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
    verdict = Verdict() if state.rights is None else state.rights.tool(tool.name)
    if verdict.decision not in _SHUT:
        return [_run(tool)]
    ended = "It began before, and was not run again"
    return _refused(tool.id, verdict, verdict.reason, ended, attempt=tool.attempt + 1, settled=settled)


def _run(tool: Tool) -> ToolStarted:
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
        verdict = Verdict() if state.rights is None else state.rights.tool(tool.name)
        if verdict.decision in _SHUT:
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
    return replace(state, version=stamp.version, queued=(*state.queued, (event.job_id, stamp.digest)))


def _on_gone(state: State, event: JobCancelled | JobTimedOut, stamp: Stamp) -> State:
    queued = tuple(each for each in state.queued if each[0] != event.job_id)
    return replace(state, version=stamp.version, queued=queued)


def _on_job(state: State, event: JobStarted, stamp: Stamp) -> State:
    mine = next((each[1] for each in state.queued if each[0] == event.job_id), b"")
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
        rights=state.rights if event.overrides is None else _rights(state.definition, event.overrides),
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
    return replace(state, version=stamp.version, selected=selected, call=call)


def _on_answered(state: State, event: ModelAnswered, stamp: Stamp) -> State:
    asked = [part for part in event.parts if isinstance(part, ToolCall)]
    if state.selected is not None:
        state = replace(state, selected=selection.settled(state.selected))
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
    )


def _on_failed(state: State, event: ModelFailed, stamp: Stamp) -> State:
    call = state.call
    tried = (*call.tried, selection.tried(call.model, event.failure, event.key)) if call is not None else ()
    if event.retry_in_ms is not None:
        call = None if call is None else replace(call, tried=tried, stuck=event.advance)
        return replace(state, version=stamp.version, call=call)
    items = digest(state.items, stamp.digest) if event.partial else state.items
    selected = None if state.selected is None else selection.settled(state.selected)
    return replace(state, version=stamp.version, items=items, call=None, tried=tried, selected=selected)


def _on_requested(state: State, event: ToolRequested, stamp: Stamp) -> State:
    return _with_tool(state, event.tool, stamp, status="requested", effect=event.effect, timeout_s=event.timeout_s)


def _on_authorised(state: State, event: ToolAuthorised, stamp: Stamp) -> State:
    return _with_tool(state, event.tool, stamp, status="authorised")


def _on_started(state: State, event: ToolStarted, stamp: Stamp) -> State:
    return _with_tool(state, event.tool, stamp, status="started", attempt=event.attempt, epoch=stamp.epoch)


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
    )


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
        rights=_rights(state.definition, None) if own else state.rights,
    )


def _on_stopping(state: State, event: JobStopping, stamp: Stamp) -> State:
    return replace(state, version=stamp.version, stopping=event.reason)


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
}


# -- owed --


def owed(state: State) -> Sequence[Effect]:
    call = state.call
    if call is not None:
        if state.stopping is not None:
            return (CancelEffect(id=f"stop-{call.id}", target=call.id, attempt=call.attempt, tool=False),)
        if call.stuck:
            return ()
        rights, selected = state.rights, state.selected
        return (
            CallModel(
                id=call.id,
                model=call.model,
                upto=call.upto,
                image_version=state.definition.image_version if state.definition else 0,
                attempt=call.attempt,
                epoch=call.epoch,
                params=_params(state),
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
        case "recover_effect", ToolStarted() | ToolDenied():
            return RecoverEffect(effect=first.tool, attempt=first.attempt - 1)
        case "recover_effect", ToolDoubted():
            return RecoverEffect(effect=first.tool, attempt=first.attempt)
        case "prove_tool", ToolSettled():
            return ProveTool(tool=first.tool, happened=True, output=first.output)
        case "prove_tool", ToolStarted() | ToolDenied():
            return ProveTool(tool=first.tool, happened=False)
        case "prove_tool", ToolUnproved():
            return ProveTool(tool=first.tool, happened=None)
        case "resolve_tool", ToolSettled():
            return ResolveTool(tool=first.tool, outcome=first.outcome, output=_plain(first.output))
        case "resolve_tool", ToolStarted():
            return ResolveTool(tool=first.tool, outcome="retry")
    return None


def _plain(output: ToolOutput) -> str:
    return output if isinstance(output, str) else ""


def _recall_answer(first: ModelAnswered, events: Sequence[Event]) -> AnswerModel:
    started = {event.tool: event.arguments for event in events if isinstance(event, ToolStarted)}
    checks = tuple(
        CallCheck(
            name=event.name,
            effect=event.effect,
            timeout_s=event.timeout_s,
            version=event.version,
            arguments=started.get(event.tool, ""),
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
