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
the same key, `probeable` asks the world first, `unsafe` waits for a person and is never begun twice by a guess. What
begins again is looked at first, as what was approved is, and what waited for the ledger.

A call that a person must approve waits beside the others, and is looked at again when it may begin: what starts is what
was approved, with the arguments in the log, in time, or nothing.

    tool_requested, action_required --> action_resolved, tool_authorised --> tool_checked, tool_started --> tool_settled
         '--> denied, expired, taken back, changed since: tool_settled(denied)

Here stand the tables: what follows from a command or an event, and what an event changes. Each has its room: mind.py
the state, turn.py the course of a turn, step.py what must hold before a model is called, tool.py the calls of tools,
doubt.py those in doubt, consent.py what people allow, allotment.py the money that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ..events.action import (
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
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
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ProveTool,
    RecoverEffect,
    ResolveTool,
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
)
from ..events.errors import BadInput
from ..events.message import Command, Effect, Event, Stamp
from ..events.policy import ApplyPolicy, ModelDenied, ToolDenied
from ..events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetDegraded,
    BudgetExceeded,
    BudgetReserved,
    RefuseAllotment,
    ReleaseAllotment,
    RunRaised,
    TakeAllotment,
)
from ..events.session import (
    CloseSession,
    JobCancelled,
    JobQueued,
    JobStarted,
    JobStopping,
    JobTimedOut,
    Send,
    SessionClosed,
    SessionCreated,
)
from . import allotment, consent, doubt, mind, selection, tool, turn
from .allotment import owed_for
from .chain import barred, models_left
from .decider import Decider
from .mind import State, knows_ledger, params_of
from .session import waking_of
from .terms import renewed
from .tool import owed_of, recall_answer
from .turn import selection_of

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


def _is_queued(state: State, job_id: str) -> bool:
    return any(job_id == queued.job_id for queued in state.queued)


def _apply(state: State, message: ApplyPolicy) -> Sequence[Event]:
    definition = state.definition
    if state.agent_id is None or definition is None:
        return ()
    required, timeout_s = message.approval_required, message.approval_timeout_s
    changed = replace(
        definition,
        policy=message.policy,
        scope=message.scope,
        terms=renewed(definition.terms, message.terms),
        approval_required=definition.approval_required if required is None else required,
        approval_timeout_s=definition.approval_timeout_s if timeout_s is None else timeout_s,
    )
    return [] if changed == definition else [AgentConfigured(definition=changed)]


def _sleep(state: State, message: StopAgent | CloseSession) -> Sequence[Event]:
    if state.agent_id is None:
        return ()
    return [AgentUnregistered(container_id=state.container_id or "", agent_id=state.agent_id, reason=message.reason)]


_DECIDE: dict[type, Any] = {
    Send: _wake,
    WakeAgent: _wake,
    JobStarted: turn.start,
    AnswerModel: tool.answer,
    ModelAnswered: turn.answered,
    FailModel: turn.fail,
    ModelFailed: turn.failed,
    SelectModel: turn.select,
    ModelSelected: turn.selected,
    SettleTool: tool.settle,
    ToolSettled: tool.settled,
    JobStopping: tool.stopping,
    StopAgent: _sleep,
    CloseSession: _sleep,
    RecoverEffect: doubt.recover,
    ProveTool: doubt.prove,
    ResolveTool: doubt.resolve,
    ApplyPolicy: _apply,
    StartTool: tool.start,
    ResolveAction: consent.may_resolve,
    ActionResolved: consent.resolved,
    ActionExpired: consent.unresolved,
    ActionCancelled: consent.unresolved,
    RevokeGrant: consent.revoke,
    TakeAllotment: allotment.take,
    AllotmentTaken: allotment.taken,
    RefuseAllotment: allotment.refuse,
    ReleaseAllotment: allotment.release,
    SessionClosed: allotment.close,
    TurnCompleted: allotment.close,
}


# -- evolve --


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    become = _EVOLVE.get(type(event))
    if become is None:
        return replace(state, version=stamp.version)
    changed: State = become(state, event, stamp)
    return changed


_EVOLVE: dict[type, Any] = {
    SessionCreated: mind.on_created,
    JobQueued: mind.on_queued,
    JobStarted: mind.on_job,
    JobStopping: mind.on_stopping,
    JobCancelled: mind.on_gone,
    JobTimedOut: mind.on_gone,
    AgentRegistered: mind.on_registered,
    AgentConfigured: mind.on_configured,
    AgentUnregistered: mind.on_unregistered,
    TurnStarted: turn.on_turn,
    TurnCompleted: mind.on_completed,
    ModelSelected: turn.on_selected,
    ModelCalled: turn.on_called,
    ModelAnswered: turn.on_answered,
    ModelFailed: turn.on_failed,
    ToolRequested: tool.on_requested,
    ToolAuthorised: tool.on_authorised,
    ToolChecked: tool.on_checked,
    ToolStarted: tool.on_started,
    ToolDoubted: doubt.on_doubted,
    ToolUnproved: doubt.on_unproved,
    ToolSettled: tool.on_settled,
    ToolRelaunched: tool.on_relaunched,
    ActionRequired: consent.on_required,
    ActionResolved: consent.on_resolved,
    GrantUsed: consent.on_granted,
    GrantRevoked: consent.on_revoked,
    BudgetReserved: allotment.on_reserved,
    AllotmentWanted: allotment.on_wanted,
    AllotmentTaken: allotment.on_taken,
    BudgetExceeded: allotment.on_exceeded,
    AllotmentReleased: allotment.on_released,
    RunRaised: allotment.on_raised,
    SessionClosed: allotment.on_closed,
}


# -- owed --


def owed(state: State) -> Sequence[Effect]:
    if state.purse is None or state.job_id is None or state.stopping is not None:
        return _owed(state)
    return [*owed_for(state, state.purse), *_owed(state)]


def _owed(state: State) -> Sequence[Effect]:
    call = state.call
    if call is not None:
        if state.stopping is not None:
            return (CancelEffect(id=f"stop-{call.id}", target=call.id, attempt=call.attempt, tool=False),)
        if call.stuck:
            return ()
        rights, selected = state.rights, state.selected
        params, held = params_of(state), state.purse.held if state.purse is not None else None
        chain = models_left(state)
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
                principal="" if rights is None else rights.principal,
                chain=chain,
                selected=selected is not None,
                reason="primary" if selected is None else selected.reason,
                keys=state.keys,
                tried=call.tried,
                deaths=call.deaths,
                step=state.steps,
                paid=held is not None and knows_ledger(state),
                degraded=selection.is_degraded(selected),
                barred=barred(state, chain),
            ),
        )
    if not state.open:
        return ()
    return [effect for each in state.open if (effect := owed_of(state, each)) is not None]


# -- recall --


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    first = events[0]
    match asked, first:
        case "wake_agent", AgentRegistered() | AgentConfigured():
            waking = waking_of(events)
            return WakeAgent(waking=waking) if waking is not None else None
        case "apply_policy", AgentConfigured():
            definition = first.definition
            return ApplyPolicy(
                policy=definition.policy,
                scope=definition.scope,
                terms=definition.terms,
                approval_required=definition.approval_required,
                approval_timeout_s=definition.approval_timeout_s,
            )
        case "stop_agent", AgentUnregistered() | JobStopping():
            return StopAgent(reason=first.reason)
        case "answer_model", ModelAnswered():
            return recall_answer(first, events)
        case "select_model", ModelSelected():
            return SelectModel(
                call=first.call or "", attempt=first.attempt, select=selection_of(first), noted=first.noted
            )
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
                select=selection_of(second) if isinstance(second, ModelSelected) else None,
                exhausted=first.exhausted,
                unasked=first.unasked,
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
        case "recover_effect", ModelCalled() | ModelDenied():
            return RecoverEffect(effect=first.call, attempt=first.attempt - 1)
        case "recover_effect", BudgetDegraded():
            selected = next((event for event in events if isinstance(event, ModelSelected)), None)
            return None if selected is None else RecoverEffect(effect=first.call, attempt=selected.attempt)
        case "recover_effect", BudgetReserved():
            again = next((event for event in events if isinstance(event, ModelCalled)), None)
            return None if again is None else RecoverEffect(effect=again.call, attempt=again.attempt - 1)
        case "recover_effect", AllotmentWanted() | BudgetExceeded():
            return RecoverEffect(effect=first.call or "", attempt=first.attempt - 1)
        case "recover_effect", ToolDenied():
            return RecoverEffect(effect=first.tool, attempt=first.attempt - 1)
        case "recover_effect", ToolRelaunched() | ToolDoubted():
            return RecoverEffect(effect=first.tool, attempt=first.attempt)
        case "take_allotment", AllotmentTaken():
            return TakeAllotment(ask=first.ask, grant=first.grant)
        case "refuse_allotment", BudgetExceeded():
            return RefuseAllotment(ask=first.ask or "", breach=first.breach)
        case "release_allotment", AllotmentReleased():
            return ReleaseAllotment(ask=first.ask)
        case "prove_tool", ToolSettled():
            return ProveTool(tool=first.tool, happened=True, output=first.output)
        case "prove_tool", ToolDenied() | ToolRelaunched():
            return ProveTool(tool=first.tool, happened=False)
        case "prove_tool", ToolUnproved():
            return ProveTool(tool=first.tool, happened=None)
        case "resolve_tool", ToolSettled():
            return ResolveTool(tool=first.tool, outcome=first.outcome, output=_plain(first.output))
        case "resolve_tool", ToolRelaunched():
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
                approval=first.approval,
            )
        case "revoke_grant", GrantRevoked():
            return RevokeGrant(action=first.grant, by=first.by)
    return None


def _plain(output: ToolOutput) -> str:
    return output if isinstance(output, str) else ""


AGENT = Decider("agent", State(), decide, evolve, owed, recall)
