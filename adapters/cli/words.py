"""One stored event on one line, for the eyes: what it is about, not all that it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ...events.agent import (
    AgentConfigured,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ToolChecked,
    ToolRelaunched,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
)
from ...events.budget import LIMITS, NOTHING, Amount, shown_count, shown_dollars
from ...events.container import PolicySet, ToolRegistered
from ...events.content import File, Image, Native, Text, Thinking, ToolCall
from ...events.image import ImageCreated, ImageUpdated
from ...events.ledger import (
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    UsageAwaited,
    UsageCounted,
    UsageRecorded,
)
from ...events.policy import ModelDenied, ModelWarned, ToolDenied
from ...events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetDegraded,
    BudgetExceeded,
    BudgetReserved,
    BudgetWarned,
    RunRaised,
)
from ...events.session import JobFailed, JobQueued, SessionCreated
from .screen import called, near
from .table import span


def about(data: Any) -> str:
    """What an event says, in the fewest words."""
    match data:
        case JobQueued():
            return f"{_parts(data.content)}"
        case JobFailed(failure=failure):
            return f"{failure.code}: {failure.message}"
        case AgentConfigured(definition=definition):
            others = f", else {', '.join(definition.fallbacks)}" if definition.fallbacks else ""
            return f"{definition.model}{others}, version {definition.image_version}"
        case ModelCalled():
            attempt = f", attempt {data.attempt}" if data.attempt > 1 else ""
            return f"{data.call} {data.model} sees versions 1 to {data.upto}{attempt}"
        case ModelAnswered():
            return f"{data.call} {data.stop_reason}: {_parts(data.parts)}"
        case ModelSelected():
            key = f", key {data.key}" if data.key is not None else ""
            because = f" after {data.because}" if data.because is not None else ""
            return f"{data.model} as {data.reason}{because}{key}"
        case ModelFailed():
            again = "" if data.retry_in_ms is None or data.advance else f", again in {span(data.retry_in_ms)}"
            return f"{data.call} {data.failure.code}: {data.failure.message}{again}"
        case ToolRequested():
            problem = f": {data.problem}" if data.problem else ""
            return f"{data.tool} {data.name} ({data.effect}){problem}"
        case ToolDenied():
            return f"{data.tool} by {data.policy}/{data.rule}: {data.reason}"
        case ModelDenied() | ModelWarned():
            return f"{data.call} {data.model} by {data.policy}/{data.rule}: {data.reason}"
        case PolicySet(policy=policy, version=version):
            return f"{policy.name if policy else 'none'}, version {version}"
        case ToolStarted():
            return f"{data.tool} attempt {data.attempt}"
        case ToolRelaunched():
            return f"{data.tool} after attempt {data.attempt}"
        case ToolChecked():
            return f"{data.tool} {data.effect if data.problem is None else data.problem}"
        case ToolSettled():
            proof = f" by {data.proof}" if data.proof else f" in {span(data.duration_ms)}"
            output = data.output if isinstance(data.output, str) else _parts(data.output)
            return f"{data.tool} {data.outcome}{proof}: {output}"
        case TurnCompleted():
            return f"{data.turn} {data.reason}, {data.steps} model calls"
        case ImageCreated() | ImageUpdated():
            return f"{data.config.name}, {data.config.model}"
        case SessionCreated():
            return f"{_value(data.session_id)}{f' “{data.alias}”' if data.alias else ''}"
        case ToolRegistered(tool=tool):
            return f"{tool.name} ({tool.effect})"
    money = _money(data)
    if money is not None:
        return money
    fields = msgspec.to_builtins(data)
    return pairs({name: value for name, value in fields.items() if name not in _SAID_ELSEWHERE})


def _money(data: Any) -> str | None:
    """What an event of a purse or a ledger says, None for any other."""
    match data:
        case BudgetReserved():
            return f"{data.call} {_amount(Amount(data.tokens, data.cost))}"
        case BudgetDegraded():
            return f"{data.call} {data.degraded_to} in place of {data.model}"
        case BudgetWarned(limits=limits):
            return near(limits)
        case BudgetExceeded():
            calls = data.tools or ((data.call,) if data.call else ())
            return f"{' '.join(calls)} {data.breach.text}".strip()
        case AllotmentWanted():
            return f"{data.ask} {_amount(data.want)} of {data.ledger}, at least {_amount(data.least)}"
        case AllotmentTaken():
            return f"{data.ask} {_amount(data.grant.amount)}"
        case AllotmentReleased():
            return f"{data.ask} keeps {_amount(data.kept)}"
        case Allotted():
            return f"{_amount(data.grant.amount)} for {_value(data.session_id)} {data.ask}, by {data.principal_id}"
        case AllotmentDenied():
            return f"{_value(data.session_id)} {data.ask}: {data.breach.text}"
        case AllotmentReturned():
            return f"{_value(data.session_id)} {data.ask} keeps {_amount(data.kept)}"
        case BudgetSet(budget=budget):
            set_to = {limit.name: most for limit in LIMITS if (most := getattr(budget, limit.name)) is not None}
            of = _of(budget.principal_id, budget.session_id)
            shown = [
                f"{name} ${most}" if isinstance(most, str) else f"{name} {shown_count(most)}"
                for name, most in set_to.items()
            ]
            return f"{of}: {', '.join(shown)}, {budget.exceed_strategy}"
        case BudgetRaised(consent=consent) | RunRaised(consent=consent):
            show = shown_dollars if "cost" in consent.limit else shown_count
            return f"{consent.limit} of the {consent.of} by {show(consent.by)}, allowed by {_value(consent.principal)}"
        case BudgetRemoved():
            return _of(data.principal_id, data.session_id)
        case UsageCounted():
            used = sum((entry.used + entry.spent for entry in data.entries), NOTHING)
            rest = ", and more follows" if data.count and not data.done else ""
            sessions = f"{shown_count(len(data.entries))} session{'' if len(data.entries) == 1 else 's'}"
            return f"{sessions} used {_amount(used)} in all{rest}"
        case UsageAwaited():
            return f"{_value(data.session_id)} calls a model that nothing is set aside for"
        case UsageRecorded():
            by = f" by {data.principal_id}" if data.principal_id else ""
            what = data.tool or data.model
            cost = f" ${data.cost}" if data.cost is not None else ""
            tokens = data.total_tokens or data.input_tokens + data.output_tokens
            return f"{data.kind}{f' {what}' if what else ''} {shown_count(tokens)} tokens{cost}{by}"
    return None


def _of(principal: str | None, session: str | None) -> str:
    if session is not None:
        return f"session {_value(session)}"
    return "scope" if principal is None else f"principal {principal}"


def _amount(amount: Amount) -> str:
    said = [
        f"{shown_count(number)} {name}"
        for name, number in (("tokens", amount.tokens), ("requests", amount.requests), ("tool calls", amount.tools))
        if number
    ]
    if amount.cost:
        said.insert(0, shown_dollars(amount.cost))
    return " + ".join(said) or "nothing"


def pairs(fields: Mapping[str, Any]) -> str:
    """What is there of some fields, each with its name."""
    return " ".join(f"{name}={_value(value)}" for name, value in fields.items() if value not in (None, "", (), [], {}))


def _parts(parts: Any) -> str:
    said = []
    for part in parts:
        match part:
            case Text():
                said.append(part.text)
            case ToolCall():
                said.append(called(part.name, part.input))
            case Thinking():
                said.append("[reasoning]")
            case Image():
                said.append("[image]")
            case File():
                said.append(f"[file {part.name or ''}]")
            case Native():
                said.append(part.text or f"[{part.provider}]")
    return " ".join(said)


_SAID_ELSEWHERE = ("containerId", "createdAt", "registeredAt", "updatedAt")

_ID = re.compile(r"[a-z]+_[0-9a-f]{24}([0-9a-f]{8})")


def _value(value: Any) -> str:
    """An id by its end, as everywhere."""
    if isinstance(value, str):
        found = _ID.fullmatch(value)
        return found[1] if found else value
    return msgspec.json.encode(value).decode()
