"""Every single use: the end of each model call and of each tool call, as one flat record. A pure fold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec import Struct

from ..events.agent import (
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    TurnStarted,
)
from ..events.content import Cost, Usage
from ..events.message import Erased, Event, Recorded
from ..events.session import JobStarted
from .projection import session_of


class ModelUse(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """The end of one model call, every attempt its own.

    at: microseconds UTC. asked: the model as asked for, `provider:name`; model: as the provider named it.
    failure: the code of what went wrong, None when it answered. amount: None where no price is known.
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
    def unpriced(self) -> bool:
        """It has no price, and may well have cost something."""
        return self.amount is None and (self.usage is not None or self.failure is None)


class ToolUse(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """The end of one tool call. runs: how often it was begun, 0 for one that never was."""

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

    __slots__ = ("_asked", "_attempt", "_job", "_open")

    def __init__(self) -> None:
        self._job: str | None = None
        self._asked = ""
        self._attempt = 1
        self._open: dict[str, tuple[str, str, int]] = {}  # tool -> name, effect class, runs

    def apply(self, recorded: Recorded) -> ModelUse | ToolUse | None:
        read = _READ.get(type(recorded.data))
        return None if read is None else read(self, recorded.data, recorded)

    def _on_job(self, event: JobStarted | TurnStarted, recorded: Recorded) -> None:
        self._job = event.job_id

    def _on_called(self, event: ModelCalled, recorded: Recorded) -> None:
        self._asked, self._attempt = event.model, event.attempt

    def _on_answered(self, event: ModelAnswered, recorded: Recorded) -> ModelUse:
        return self._model_use(
            recorded, event.call, event.model, event.stop_reason, None, event.usage, event.cost, event.duration_ms
        )

    def _on_failed(self, event: ModelFailed, recorded: Recorded) -> ModelUse:
        return self._model_use(
            recorded, event.call, "", None, event.failure.code, event.usage, event.cost, event.duration_ms
        )

    def _on_erased(self, event: Erased, recorded: Recorded) -> ModelUse | None:
        if event.name not in ("model_answered", "model_failed"):
            return None
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
    ) -> ModelUse:
        head = recorded.head
        context = head.context
        provider, _, name = self._asked.partition(":")
        return ModelUse(
            position=recorded.position,
            at=head.at,
            scope=context.scope,
            principal=context.principal,
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

    def _on_requested(self, event: ToolRequested, recorded: Recorded) -> None:
        self._open[event.tool] = (event.name, event.effect, 0)

    def _on_run(self, event: ToolStarted, recorded: Recorded) -> None:
        name, effect, runs = self._open.get(event.tool, _NO_TOOL)
        self._open[event.tool] = (name, effect, runs + 1)

    def _on_settled(self, event: ToolSettled, recorded: Recorded) -> ToolUse:
        name, effect, runs = self._open.pop(event.tool, _NO_TOOL)
        head = recorded.head
        context = head.context
        return ToolUse(
            position=recorded.position,
            at=head.at,
            scope=context.scope,
            principal=context.principal,
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


DIGITS_MAX = 20
"""Digits before the point, and zeros behind it before the first other one: no money needs more, and sums stay exact."""

_NO_TOOL = ("", "unsafe", 0)

_READ: dict[type[Event], Callable[[Meter, Any, Recorded], ModelUse | ToolUse | None]] = {
    JobStarted: Meter._on_job,
    TurnStarted: Meter._on_job,
    ModelCalled: Meter._on_called,
    ModelAnswered: Meter._on_answered,
    ModelFailed: Meter._on_failed,
    Erased: Meter._on_erased,
    ToolRequested: Meter._on_requested,
    ToolStarted: Meter._on_run,
    ToolSettled: Meter._on_settled,
}


class Meters:
    """Of a whole log: a meter a stream. `apply` takes its events in order, each once, and never raises."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, Meter] = {}

    def apply(self, recorded: Recorded) -> ModelUse | ToolUse | None:
        read = _READ.get(type(recorded.data))
        if read is None:
            return None
        meter = self._of.get(recorded.stream)
        if meter is None:
            meter = self._of[recorded.stream] = Meter()
        return read(meter, recorded.data, recorded)


def uses(events: Iterable[Recorded]) -> Iterator[ModelUse | ToolUse]:
    """Every single use in these events of a log, in order."""
    return filter(None, map(Meters().apply, events))


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
