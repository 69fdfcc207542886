"""A call of a tool, from the answer that asks for it to its end. Pure.

    tool_requested --> tool_authorised --> tool_started --> tool_settled
         '--> no such call, stopped, forbidden, not allowed, not paid: tool_settled

An approved call is looked at again when it may begin: what a person's consent covers is in consent.py. So is one that
waited for the ledger, and one that begins again: its owner is gone and it was in doubt, see doubt.py. Whoever allowed a
call, it begins when it is paid for.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ..events.action import ActionRequired, GrantUsed
from ..events.agent import (
    AnswerModel,
    CancelEffect,
    LaunchTool,
    ModelAnswered,
    ProbeTool,
    RunTool,
    SettleTool,
    StartTool,
    ToolAuthorised,
    ToolChecked,
    ToolDoubted,
    ToolRelaunched,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
)
from ..events.budget import Amount, Breach, Terms
from ..events.content import ToolCall
from ..events.errors import BadInput
from ..events.message import Effect, Event, Stamp, digest
from ..events.model import ModelAnswer
from ..events.policy import PolicyDecision, ToolDenied
from ..events.purse import BudgetExceeded
from ..events.session import JobStopping
from ..events.tool import CallCheck, arguments_digest
from . import gate as gates
from . import purse as money
from .approval import why_asked
from .consent import FULL, ask, not_covered
from .length import tokens_in, tokens_of
from .mind import State, Tool, completed, handed_on, money_terms, tool_of, with_tool
from .picture import pictures_in
from .policy import SHUT, Rights, Said, Verdict, denied_by
from .purse import Purse
from .turn import ends, proceed

SKIPPED = "Not run: the turn was stopped before this call began."
BEGAN_BEFORE = "It began before, and was not run again"
UNKNOWN = "It is not known whether this call took effect: the program stopped while it ran."

NO_RUN = {"refusal", "context_exceeded"}
"""Stop reasons after which the calls of the answer are not run."""


def answer(state: State, message: AnswerModel) -> Sequence[Event]:
    """The model answered: what it said, then every call that it asks for, which begins, waits for a person or for the
    ledger, or ends without a run.
    """
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
    no_run = state.stopping is not None or answer.stop_reason in NO_RUN or ends(state)
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


def _permitted(state: State, tool: str, number: int, part: ToolCall, check: CallCheck, put: int) -> Sequence[Event]:
    """A call that may begin begins; one that a rule forbids is told so; for one that a person must approve, they are
    asked. number: of the call in the session. put: questions of this answer so far.
    """
    verdict, reason = Verdict(), why_asked(state.definition, check)
    if state.rights is not None:
        verdict = state.rights.tool(part.name)
        said = _forbids(state.rights, verdict, number - state.before)
        if said is not None:
            return refused(tool, said, "The call was not run")
        if verdict.decision is PolicyDecision.REQUIRE_APPROVAL:
            reason = f"policy {verdict.policy}/{verdict.rule}"
    if reason is not None:
        return ask(state, tool, part, check, reason, put)
    return [
        authorised(tool, verdict),
        ToolStarted(tool=tool, attempt=1, arguments=check.arguments or arguments_digest(part.input)),
    ]


def authorised(tool: str, verdict: Verdict) -> ToolAuthorised:
    """The rules let a call run, by this verdict on it."""
    rule = None if verdict.rule is None else f"{verdict.policy}/{verdict.rule}"
    return ToolAuthorised(tool=tool, decision=str(verdict.decision.value), rule=rule)


def _forbids(rights: Rights, verdict: Verdict, ordinal: int) -> Said | Verdict | None:
    """The rule that forbids a call, the `ordinal`th that its turn asks for."""
    if verdict.decision is PolicyDecision.DENY:
        return verdict
    limit = rights.limits.tool_calls_per_turn
    return limit[1] if limit is not None and ordinal > limit[0] else None


def refused(
    tool: str, said: Said | Verdict, outcome: str, *, attempt: int = 1, settled: str = "denied"
) -> Sequence[Event]:
    """A rule forbids a call. outcome: what became of it, in words. settled: how it ends."""
    denied = ToolDenied(
        tool=tool, rule=said.rule or "", reason=said.reason, policy=said.policy, version=said.version, attempt=attempt
    )
    output = f"{denied_by(said)}: {said.reason}. {outcome}."
    return [denied, ToolSettled(tool=tool, outcome=settled, output=output, error_type="PolicyDenied")]


def forbidden(state: State, tool: Tool) -> Said | Verdict | None:
    """What forbids another attempt of a call: a rule, or a rule that asks for an approval which the call has not."""
    rights = state.rights
    if rights is None:
        return None
    verdict = rights.tool(tool.name)
    if tool.approval is not None:
        return verdict if verdict.decision is PolicyDecision.DENY else None
    return verdict if verdict.decision in SHUT else _forbids(rights, verdict, int(tool.id[1:]) - state.before)


def start(state: State, message: StartTool) -> Sequence[Event]:
    """A call may begin only as what it was approved to be, and in time; where nobody had to be asked, only if nobody
    has to be by now; and where it is paid for.
    """
    tool = tool_of(state, message.tool)
    if tool is None or tool.status != "authorised" or tool.attempt != message.attempt:
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
        approval=message.approval,
    )
    state = replace(state, purse=money.ticked(state.purse, message.at))
    return [checked, *_looked_at(state, tool, checked)]


def _looked_at(state: State, tool: Tool, now: ToolChecked) -> Sequence[Event]:
    """What becomes of a call that was looked at: it begins, waits for the ledger, or is not run."""
    if tool.approval is not None:
        changed = not_covered(state, tool, tool.approval, now)
    else:
        said = forbidden(state, tool)
        if said is not None and tool.attempt:
            return refused(tool.id, said, BEGAN_BEFORE, attempt=tool.attempt + 1, settled=_doubtful(tool))
        if said is not None:
            return refused(tool.id, said, "The call was not run")
        changed = _changed(state, tool, now)
    if changed is not None:
        return [_not_begun(tool, changed)]
    terms = money_terms(state)
    unpaid = None if terms is None else _unpaid(state, tool, terms)
    if unpaid is not None:
        return unpaid
    if tool.approval is not None or tool.attempt:
        return [begin(tool)]
    return [authorised(tool.id, Verdict() if state.rights is None else state.rights.tool(tool.name)), begin(tool)]


def _changed(state: State, tool: Tool, now: ToolChecked) -> str | None:
    """Why a call that no person was asked about may not begin by now, in words; None where it may."""
    if now.problem is not None:
        return now.problem
    if why_asked(state.definition, now) is not None:
        return "a person must allow it by now"
    return None if now.effect in (tool.effect, "read", "idempotent") else "its tool is declared otherwise now"


def _unpaid(state: State, tool: Tool, terms: Terms) -> Sequence[Event] | None:
    """What becomes of a call that the budgets do not let begin now; None where they do. Another attempt was counted
    with the first, and the ledger is not asked: only a limit of its run that is lower by now is in its way.
    """
    purse = state.purse or money.EMPTY
    breach = gates.tool_breach(purse, terms, 0 if tool.attempt else 1, 0 if tool.attempt else state.begun)
    if tool.attempt:
        return None if breach is None else [_not_begun(tool, breach.text.rstrip("."))]
    if breach is not None:
        return [BudgetExceeded(breach=breach, tools=(tool.id,)), not_funded(tool.id, breach)]
    if terms.ledger is None or purse.left.tools > 0:
        return None
    if purse.asking is not None:
        return ()  # it waits with those that the ledger is being asked for
    want = replace(purse.left, tools=1 + gates.TOOLS_AHEAD)
    return [gates.wanted(purse, terms.ledger, want, Amount(tools=1), tools=(tool.id,))]


def _not_begun(tool: Tool, changed: str) -> ToolSettled:
    """The end of a call that may not begin any more, or not again. changed: why, in words."""
    approved = tool.approval is not None
    error_type = "ApprovalChanged" if approved else "CallChanged"
    if not tool.attempt:
        when = "a person allowed this call, but since then" if approved else "it waited for its budget, and meanwhile"
        return ToolSettled(tool=tool.id, outcome="denied", output=f"Not run: {when} {changed}.", error_type=error_type)
    outcome = "unknown" if approved else _doubtful(tool)
    doubt = "" if outcome == "error" else f"{UNKNOWN} "
    since = "since a person allowed it, " if approved else ""
    output = f"{doubt}It was not begun again: {since}{changed}."
    return ToolSettled(tool=tool.id, outcome=outcome, output=output, error_type=error_type)


def _doubtful(tool: Tool) -> str:
    """How a call ends that began before and does not again."""
    return "error" if tool.effect == "read" else "unknown"


def settle(state: State, message: SettleTool) -> Sequence[Event]:
    """A run ended. Of one that was cut off and may not be repeated on a guess, a person must say what became of it."""
    tool = tool_of(state, message.tool)
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


def settled(state: State, message: ToolSettled) -> Sequence[Event]:
    return () if state.open or state.call is not None or state.job_id is None else proceed(state)


def stopping(state: State, message: JobStopping) -> Sequence[Event]:
    """The job is to end: calls that did not begin are skipped, and of those in doubt nobody is asked any more. Where
    nothing is under way, the turn is over at once.
    """
    ends: list[Event] = []
    for tool in state.open:
        began = tool.status == "authorised" and tool.attempt > 0
        if began or tool.status in ("doubted", "unproved"):
            ends.append(ToolSettled(tool=tool.id, outcome="unknown", output=UNKNOWN))
        elif tool.status != "started":
            ends.append(ToolSettled(tool=tool.id, outcome="skipped", output=SKIPPED))
    idle = state.call is None or state.call.stuck
    if not ends and not state.open and idle and state.job_id is not None:
        return [completed(state, "interrupted")]
    return ends


def begin(tool: Tool) -> ToolStarted:
    return ToolStarted(tool=tool.id, attempt=tool.attempt + 1, arguments=arguments_digest(tool.input))


# -- what the budgets leave --


class _Means:
    """What the budgets leave for the calls of tools of one answer, as they are gone through one by one."""

    def __init__(self, purse: Purse, terms: Terms) -> None:
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
        breach = gates.tool_breach(self._purse, self._terms, self._asked)
        if breach is not None:
            return [BudgetExceeded(breach=breach, tools=(tool,)), not_funded(tool, breach)]
        warning = gates.tool_warning(self._purse, self._terms, self._asked)
        said = () if warning is None else (warning,)
        if asks:
            return [*said, *begun]  # it is paid for when it starts
        if self._terms.ledger is None or self._purse.left.tools > self._begun:
            self._begun += 1
            return [*said, *begun]
        self._waiting.append(tool)
        if not isinstance(begun[0], GrantUsed):
            return said
        return [*said, *(event for event in begun if not isinstance(event, ToolStarted))]

    def asks(self) -> Sequence[Event]:
        """What the ledger is asked for, for those that wait. What the session still has is asked for again with it."""
        if not self._waiting or self._terms.ledger is None:
            return ()
        after = replace(self._purse, spent=self._purse.spent + Amount(tools=self._begun))
        want = after.left + Amount(tools=len(self._waiting) + gates.TOOLS_AHEAD)
        least = Amount(tools=1)  # those that it does not cover ask again, one by one
        return [gates.wanted(after, self._terms.ledger, want, least, tools=tuple(self._waiting))]


def _means(state: State, message: AnswerModel) -> _Means | None:
    terms = money_terms(state)
    if terms is None:
        return None
    purse = state.purse or money.EMPTY
    settled = money.settled(purse, message.call, message.answer.usage, message.cost, purse.now)
    return _Means(settled or purse, terms)


def not_funded(tool: str, breach: Breach) -> ToolSettled:
    return ToolSettled(tool=tool, outcome="denied", output=f"Not run: {breach.text}", error_type="BudgetExceeded")


# -- evolve --


def on_requested(state: State, event: ToolRequested, stamp: Stamp) -> State:
    return with_tool(
        state,
        event.tool,
        stamp,
        status="requested",
        effect=event.effect,
        timeout_s=event.timeout_s,
        version=event.version,
    )


def on_authorised(state: State, event: ToolAuthorised, stamp: Stamp) -> State:
    return with_tool(state, event.tool, stamp, status="authorised")


def on_checked(state: State, event: ToolChecked, stamp: Stamp) -> State:
    """Where the ledger is being asked already, a first run waits for its answer, if nothing follows in this batch."""
    if event.attempt or state.purse is None or state.purse.asking is None:
        return replace(state, version=stamp.version)
    return with_tool(state, event.tool, stamp, status="requested")


def on_relaunched(state: State, event: ToolRelaunched, stamp: Stamp) -> State:
    return with_tool(state, event.tool, stamp, status="authorised")


def on_started(state: State, event: ToolStarted, stamp: Stamp) -> State:
    if event.attempt == 1:
        state = replace(state, begun=state.begun + 1, purse=money.tool_begun(state.purse, stamp.at))
    return with_tool(state, event.tool, stamp, status="started", attempt=event.attempt, epoch=stamp.epoch)


def on_settled(state: State, event: ToolSettled, stamp: Stamp) -> State:
    output = event.output
    if isinstance(output, str):
        length = state.length.and_more(8 + tokens_of(output))
    else:
        length = state.length.and_more(8 + tokens_in(output), pictures_in(output))
    return replace(
        state,
        version=stamp.version,
        items=digest(state.items, stamp.digest),
        open=tuple(each for each in state.open if each.id != event.tool),
        length=length,
        purse=money.ticked(state.purse, stamp.at),
    )


def owed_of(state: State, tool: Tool) -> Effect | None:
    """What is owed to the world for an open call, None where it waits for a person or for the ledger."""
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
            cwd="" if tool.approval is None else tool.approval.place.cwd,
            within=handed_on(state),
            origin=state.principal,
        )
    if tool.status == "doubted":
        return ProbeTool(
            id=f"probe-{tool.id}",
            name=tool.name,
            call_id=tool.call_id,
            input=tool.input,
            key=f"{state.session_id}:{tool.id}",
            attempt=tool.attempt,
            cwd="" if tool.approval is None else tool.approval.place.cwd,
            within=handed_on(state),
            origin=state.principal,
        )
    if tool.status == "authorised":
        return LaunchTool(id=f"launch-{tool.id}", tool=tool.id, name=tool.name, input=tool.input, attempt=tool.attempt)
    return None


def recall_answer(first: ModelAnswered, events: Sequence[Event]) -> AnswerModel:
    """The command that the batch of an answer came from."""
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
