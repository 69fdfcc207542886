"""Every single use: the end of each model call and of each tool call, as one flat record. A pure fold.

What programs tell a ledger is such a use too, with what they said of it: its call is `usage:` and the entry's id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.agent import (
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
    TurnStarted,
)
from ..events.content import Cost, Usage
from ..events.ledger import UsageRecorded, model_named, tokens_used
from ..events.message import Erased, Event, Recorded, Unknown
from ..events.purse import AllotmentWanted
from ..events.session import JobCancelled, JobQueued, JobStarted, JobTimedOut
from .projection import session_of

LOST = "lost"
"""The failure of a call that has no end, and was followed by what comes after one: its process died."""


class ModelUse(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """The end of one model call, every attempt that was made its own.

    at: microseconds UTC. principal: for whom its job counts. asked: the model as asked for, `provider:name`; model: as
    the provider named it. failure: the code of what went wrong, None when it answered, `LOST` where it was under way
    when its process died: then `at` is when it began, and `position` where it is known. amount: None where no price is
    known. price_table: it was to be priced by, None where nothing was to be paid.
    """

    position: int
    at: int
    scope: str
    principal: str
    container_id: str | None
    image_id: str | None
    session_id: str
    agent_id: str | None
    job_id: str | None
    call: str
    attempt: int
    asked: str
    provider: str
    model: str
    stop_reason: str | None
    failure: str | None
    usage: Usage | None
    amount: Decimal | None
    price_table: str | None
    duration_ms: int

    @property
    def costs(self) -> bool:
        """It may well have cost something: also where it broke off, and nobody counted it."""
        return self.usage is not None or self.failure in (None, LOST) or self.price_table is not None

    @property
    def unpriced(self) -> bool:
        """It may well have cost something, and has no price."""
        return self.amount is None and self.costs


class ToolUse(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """The end of one tool call. principal: for whom its job counts. runs: how often it was begun, 0 for one that never
    was."""

    position: int
    at: int
    scope: str
    principal: str
    container_id: str | None
    image_id: str | None
    session_id: str
    agent_id: str | None
    job_id: str | None
    tool: str
    name: str
    effect: str
    outcome: str
    error_type: str | None
    proof: str | None
    runs: int
    duration_ms: int


class Meter:
    """Reads off what one session uses. `apply` takes its events in order, each once, and never raises."""

    __slots__ = ("_asked", "_attempt", "_began", "_call", "_job", "_open", "_waiting", "_whose")

    def __init__(self) -> None:
        self._job: str | None = None
        self._waiting: dict[str, str] = {}  # jobs, with the principals for whom they count
        self._whose = ""
        self._asked = ""
        self._attempt = 1
        self._call: str | None = None  # under way, since when
        self._began = 0
        self._open: dict[str, tuple[str, str, int]] = {}  # tool -> name, effect class, runs

    def apply(self, recorded: Recorded) -> Sequence[ModelUse | ToolUse]:
        read = _READ.get(type(recorded.data))
        return () if read is None else read(self, recorded.data, recorded)

    def _on_queued(self, event: JobQueued, recorded: Recorded) -> Sequence[ModelUse]:
        self._waiting[event.job_id] = event.counts_for(recorded.context.principal)
        return ()

    def _on_gone(self, event: JobCancelled | JobTimedOut, recorded: Recorded) -> Sequence[ModelUse]:
        self._waiting.pop(event.job_id, None)
        return ()

    def _on_job(self, event: JobStarted | TurnStarted, recorded: Recorded) -> Sequence[ModelUse]:
        if event.job_id != self._job:
            self._job, self._whose = event.job_id, self._waiting.pop(event.job_id, "")
        return ()

    def _on_called(self, event: ModelCalled, recorded: Recorded) -> Sequence[ModelUse]:
        lost = self._lost(recorded)
        self._asked, self._attempt = event.model, event.attempt
        self._call, self._began = event.call, recorded.head.at
        return lost

    def _on_selected(self, event: ModelSelected, recorded: Recorded) -> Sequence[ModelUse]:
        if not event.noted and event.reason != "budget":
            self._call = None  # it was not asked: another is in its place
        return ()

    def _on_over(self, event: TurnCompleted | AllotmentWanted, recorded: Recorded) -> Sequence[ModelUse]:
        return self._lost(recorded)

    def _lost(self, recorded: Recorded) -> Sequence[ModelUse]:
        """What is under way and can have no end any more: what comes now comes after that."""
        if self._call is None:
            return ()
        [use] = self._model_use(recorded, self._call, "", None, LOST, None, None, 0)
        return (replace(use, at=self._began),)

    def _on_answered(self, event: ModelAnswered, recorded: Recorded) -> Sequence[ModelUse]:
        return self._model_use(
            recorded, event.call, event.model, event.stop_reason, None, event.usage, event.cost, event.duration_ms
        )

    def _on_failed(self, event: ModelFailed, recorded: Recorded) -> Sequence[ModelUse]:
        if not event.asked:
            self._call = None
            return ()
        return self._model_use(
            recorded, event.call, "", None, event.failure.code, event.usage, event.cost, event.duration_ms
        )

    def _on_unknown(self, event: Unknown, recorded: Recorded) -> Sequence[ModelUse]:
        """An end as a later release writes it is one all the same."""
        if event.name in _ENDS:
            self._call = None
        return ()

    def _on_erased(self, event: Erased, recorded: Recorded) -> Sequence[ModelUse]:
        if event.name in ("turn_completed", "allotment_wanted"):
            return self._lost(recorded)
        if event.name == "model_called":
            lost = self._lost(recorded)
            self._call, self._began = "", recorded.head.at
            return lost
        if event.name not in _ENDS:
            return ()
        failure = "erased" if event.name == "model_failed" else None
        return self._model_use(recorded, "", "", None, failure, None, None, 0)

    def _model_use(
        self,
        recorded: Recorded,
        call: str,
        model: str,
        stop_reason: str | None,
        failure: str | None,
        usage: Usage | None,
        cost: Cost | None,
        duration_ms: int,
    ) -> Sequence[ModelUse]:
        head = recorded.head
        context = head.context
        provider, _, name = self._asked.partition(":")
        self._call = None
        use = ModelUse(
            position=recorded.position,
            at=head.at,
            scope=context.scope,
            principal=self._whose or context.principal,
            container_id=context.container_id,
            image_id=context.image_id,
            session_id=session_of(recorded),
            agent_id=context.agent_id,
            job_id=self._job or head.job,
            call=call,
            attempt=self._attempt,
            asked=self._asked,
            provider=provider,
            model=model or name,
            stop_reason=stop_reason,
            failure=failure,
            usage=usage,
            amount=None if cost is None else amount_of(cost),
            price_table=None if cost is None else cost.table,
            duration_ms=duration_ms,
        )
        return (use,)

    def _on_requested(self, event: ToolRequested, recorded: Recorded) -> Sequence[ToolUse]:
        self._open[event.tool] = (event.name, event.effect, 0)
        return ()

    def _on_run(self, event: ToolStarted, recorded: Recorded) -> Sequence[ToolUse]:
        name, effect, runs = self._open.get(event.tool, _NO_TOOL)
        self._open[event.tool] = (name, effect, runs + 1)
        return ()

    def _on_settled(self, event: ToolSettled, recorded: Recorded) -> Sequence[ToolUse]:
        name, effect, runs = self._open.pop(event.tool, _NO_TOOL)
        head = recorded.head
        context = head.context
        use = ToolUse(
            position=recorded.position,
            at=head.at,
            scope=context.scope,
            principal=self._whose or context.principal,
            container_id=context.container_id,
            image_id=context.image_id,
            session_id=session_of(recorded),
            agent_id=context.agent_id,
            job_id=self._job or head.job,
            tool=event.tool,
            name=name,
            effect=effect,
            outcome=event.outcome,
            error_type=event.error_type,
            proof=event.proof,
            runs=runs,
            duration_ms=event.duration_ms,
        )
        return (use,)

    def _on_told(self, event: UsageRecorded, recorded: Recorded) -> Sequence[ModelUse | ToolUse]:
        """What a program used. A call of a tool or a connector that cost something is entered as that as well."""
        if event.kind not in ("model_usage", "tool_usage", "connector_usage"):
            return ()
        used = event.input_tokens or event.output_tokens or event.total_tokens
        found: list[ModelUse | ToolUse] = [_told_tool(event, recorded)] if event.kind == "tool_usage" else []
        if event.kind == "model_usage" or used or event.cost is not None:
            found.append(_told_call(event, recorded))
        return found


def _told_call(event: UsageRecorded, recorded: Recorded) -> ModelUse:
    read, written = tokens_used(event)
    provider, model = model_named(event.provider, event.model or event.tool)
    return ModelUse(
        **_told(event, recorded),
        call=f"usage:{event.entry}",
        attempt=1,
        asked=f"{provider}:{model}",
        provider=provider,
        model=model,
        stop_reason=None,
        failure=None,
        usage=Usage(input_tokens=read, output_tokens=written) if read or written else None,
        amount=None if event.cost is None else amount_of(Cost(amount=event.cost, table="")),
        price_table=None,
    )


def _told_tool(event: UsageRecorded, recorded: Recorded) -> ToolUse:
    return ToolUse(
        **_told(event, recorded),
        tool=f"usage:{event.entry}",
        name=event.tool or "",
        effect="unsafe",
        outcome="unknown",
        error_type=None,
        proof=None,
        runs=1,
    )


def _told(event: UsageRecorded, recorded: Recorded) -> dict[str, Any]:
    took_ms = event.duration_ms
    return {
        "position": recorded.position,
        "at": max(0, min(event.at, recorded.head.at)),
        "scope": recorded.head.context.scope,
        "principal": event.principal_id or "",
        "container_id": None,
        "image_id": None,
        "session_id": event.session_id or "",
        "agent_id": None,
        "job_id": event.job_id,
        "duration_ms": round(took_ms) if took_ms is not None and math.isfinite(took_ms) and took_ms > 0 else 0,
    }


DIGITS_MAX = 20
"""Digits before the point, and zeros behind it before the first other one: no money needs more, and sums stay exact."""

_ENDS = ("model_answered", "model_failed")

_NO_TOOL = ("", "unsafe", 0)

_READ: dict[type[Event], Callable[[Meter, Any, Recorded], Sequence[ModelUse | ToolUse]]] = {
    JobQueued: Meter._on_queued,
    JobCancelled: Meter._on_gone,
    JobTimedOut: Meter._on_gone,
    JobStarted: Meter._on_job,
    TurnStarted: Meter._on_job,
    ModelCalled: Meter._on_called,
    ModelSelected: Meter._on_selected,
    TurnCompleted: Meter._on_over,
    AllotmentWanted: Meter._on_over,
    ModelAnswered: Meter._on_answered,
    ModelFailed: Meter._on_failed,
    Erased: Meter._on_erased,
    Unknown: Meter._on_unknown,
    ToolRequested: Meter._on_requested,
    ToolStarted: Meter._on_run,
    ToolSettled: Meter._on_settled,
    UsageRecorded: Meter._on_told,
}


class Meters:
    """Of a whole log: a meter a stream. `apply` takes its events in order, each once, and never raises."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, Meter] = {}

    def apply(self, recorded: Recorded) -> Sequence[ModelUse | ToolUse]:
        read = _READ.get(type(recorded.data))
        if read is None:
            return ()
        meter = self._of.get(recorded.stream)
        if meter is None:
            meter = self._of[recorded.stream] = Meter()
        return read(meter, recorded.data, recorded)


def uses(events: Iterable[Recorded]) -> Iterator[ModelUse | ToolUse]:
    """Every single use in these events of a log, in order."""
    return chain.from_iterable(map(Meters().apply, events))


def amount_of(cost: Cost) -> Decimal | None:
    """The amount as a number. None where there is none, and where the text is no amount of money."""
    if cost.amount is None:
        return None
    try:
        amount = Decimal(cost.amount)
    except InvalidOperation:
        return None
    fits = amount.is_finite() and abs(amount.adjusted()) < DIGITS_MAX and len(cost.amount) <= 2 * DIGITS_MAX
    return amount if fits and amount >= 0 else None
