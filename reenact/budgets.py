"""A ledger for programs that use models outside of a runtime: limits, checks, and what was used, over the same rules.

`Ledger(writer)` counts what it is told; with `RuntimeLedgerWriter(runtime)` the facts go to the ledger of the runtime's
scope, beside what its own sessions use. A check alone can be outrun by another: `reserve` sets aside first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, Self

from msgspec import Struct
from msgspec.structs import replace

from .access import NO_LIMITS
from .actors import decider
from .actors.book import SCOPE, State, Sums
from .actors.clock import Clock, SystemClock
from .actors.judge import judge
from .actors.ledger import LEDGER
from .actors.ledger import decide as decided
from .events import codec
from .events.budget import NOTHING, Amount, Budget, budget_of, checked_dollars, dollars, nanos
from .events.errors import BadInput, NotAPerson, OverBudget
from .events.ledger import (
    AHEAD_MAX_S,
    RESERVED,
    Allot,
    RecordUsage,
    RemoveBudget,
    ReturnAllotment,
    SetBudget,
    UsageRecorded,
)
from .events.message import Command
from .events.visible import shown

if TYPE_CHECKING:
    from .runtime import Runtime

BudgetExceededError = OverBudget

_HOLDER: ContextVar[str | None] = ContextVar("reenact_holder", default=None)
"""The reservation whose block is running."""

ENTRIES_MAX = 100_000
"""Entries that a writer in memory can list. Its sums hold for ever."""


class LedgerEventType(StrEnum):
    """What an entry is about."""

    MODEL_USAGE = "model_usage"
    TOOL_USAGE = "tool_usage"
    CONNECTOR_USAGE = "connector_usage"
    BUDGET_CHECK = "budget_check"
    QUOTA_CHECK = "quota_check"
    AUDIT = "audit"


class BudgetDecision(StrEnum):
    """What the limits say, from the mildest to the worst."""

    ALLOW = "allow"
    WARN = "warn"
    DEGRADE = "degrade"
    DENY = "deny"


class LedgerEvent(Struct, frozen=True, kw_only=True):
    """One entry. timestamp: seconds since 1970 UTC. cost: US dollars as an exact decimal."""

    event_id: str = ""
    type: LedgerEventType = LedgerEventType.MODEL_USAGE
    timestamp: float | None = None
    job_id: str | None = None
    run_id: str | None = None
    session_id: str | None = None
    scope_id: str = "default"
    principal_id: str | None = None
    provider: str | None = None
    model: str | None = None
    tool_name: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost: str | None = None
    duration_ms: float | None = None
    metadata: dict[str, str] = {}

    @classmethod
    def from_llm_usage(cls, usage: Any, **fields: Any) -> Self:
        """An entry of what a model used. usage: anything with input_tokens, output_tokens, total_tokens, total_cost."""

        def read(*names: str) -> Any:
            for name in names:
                value = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
                if value is not None:
                    return value
            return None

        given, written = read("input_tokens") or 0, read("output_tokens") or 0
        cost = read("cost", "total_cost")
        counted = {
            "input_tokens": given,
            "output_tokens": written,
            "total_tokens": read("total_tokens") or given + written,
            "cost": None if cost is None else checked_dollars("cost", cost),
        }
        return cls(**{**counted, **fields})


class UsageRecord(Struct, frozen=True, kw_only=True):
    """What was used in all. total_cost: US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    total_cost: Decimal = Decimal(0)
    requests: int = 0
    tool_calls: int = 0


class LedgerWriter(Protocol):
    """Where entries go. `put` decides a command in the ledger of a scope, and gives the state after it.

    scope: the one that is meant where none is named. `checked` refuses a limit that cannot be set.
    """

    @property
    def scope(self) -> str: ...
    def checked(self, budget: Budget) -> Budget: ...
    async def put(self, scope_id: str, command: Command) -> tuple[State, bool]: ...
    async def state(self, scope_id: str) -> State: ...
    async def entries(self, scope_id: str) -> list[UsageRecorded]: ...
    def now(self) -> int: ...
    def new_id(self) -> str: ...


class _Writing:
    """What every writer offers beside the port."""

    async def write(self: Any, event: LedgerEvent) -> None:
        """Record one entry. Raises BadInput for a type, a time, counts, a cost or metadata that are none."""
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            value = getattr(event, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**15:
                raise BadInput(f"{name} must be a whole number from 0, not {value!r}.")
        heard = self.now()
        command = RecordUsage(
            entry=event.event_id or self.new_id(),
            kind=_kind(event.type),
            at=heard if event.timestamp is None else _time(event.timestamp, heard),
            heard=heard,
            principal_id=event.principal_id,
            session_id=event.session_id,
            run_id=event.run_id,
            job_id=event.job_id,
            provider=event.provider,
            model=event.model,
            tool=event.tool_name,
            input_tokens=event.input_tokens,
            output_tokens=event.output_tokens,
            total_tokens=event.total_tokens,
            cost=checked_dollars("cost", event.cost),
            duration_ms=event.duration_ms,
            metadata=_metadata(event.metadata),
            holder=_HOLDER.get(),
        )
        await self.put(event.scope_id, command)

    def checked(self, budget: Budget) -> Budget:
        """A limit that may be set here. Raises BadInput, and NotAPerson where an agent or one of its tools sets it."""
        decided(State(), SetBudget(budget=budget, at=0))
        return budget

    async def get_usage(
        self: Any, scope_id: str, principal_id: str | None = None, session_id: str | None = None
    ) -> UsageRecord:
        """What a scope used, or one principal or session of it: told here, and by the sessions of a runtime."""
        state: State = await self.state(scope_id)
        key = SCOPE
        if session_id is not None:
            key = ("session", session_id)
        elif principal_id is not None:
            key = ("principal", principal_id)
        total = state.sums.get(key, Sums()).total
        read = written = 0
        for entry in await self.entries(scope_id):
            if principal_id in (None, entry.principal_id) and session_id in (None, entry.session_id):
                read, written = read + entry.input_tokens, written + entry.output_tokens
        return UsageRecord(
            input_tokens=read,
            output_tokens=written,
            total_tokens=total.tokens,
            total_cost=Decimal(dollars(total.cost)),
            requests=total.requests,
            tool_calls=total.tools,
        )

    async def list_events(
        self: Any,
        scope_id: str,
        *,
        event_type: LedgerEventType | None = None,
        principal_id: str | None = None,
        limit: int = 100,
    ) -> list[LedgerEvent]:
        """The entries told here, the newest first."""
        found: list[LedgerEvent] = []
        for entry in reversed(await self.entries(scope_id)):
            if event_type not in (None, entry.kind) or principal_id not in (None, entry.principal_id):
                continue
            if len(found) >= limit:
                break
            found.append(_event_of(scope_id, entry))
        return found


class InMemoryLedgerWriter(_Writing):
    """A ledger for each scope, in memory: the same decisions as a stored one."""

    scope = "default"

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._states: dict[str, tuple[Any, ...]] = {}
        self._entries: dict[str, list[UsageRecorded]] = {}

    async def put(self, scope_id: str, command: Command) -> tuple[State, bool]:
        states = self._states.get(scope_id, LEDGER.initial)
        decision = decider.decide(LEDGER, states, command, version=0, at=self.now(), epoch=1)
        self._states[scope_id] = decision.states
        entries = self._entries.setdefault(scope_id, [])
        entries += [event for event in decision.events if isinstance(event, UsageRecorded)]
        del entries[:-ENTRIES_MAX]
        return decision.states[0], bool(decision.events)

    async def state(self, scope_id: str) -> State:
        state: State = self._states.get(scope_id, LEDGER.initial)[0]
        return state

    async def entries(self, scope_id: str) -> list[UsageRecorded]:
        return list(self._entries.get(scope_id, ()))

    def now(self) -> int:
        return self._clock.now()

    def new_id(self) -> str:
        return self._clock.new_id()


class RuntimeLedgerWriter(_Writing):
    """The ledger of a runtime's own scope, in its log."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._holders: set[str] = set()

    @property
    def scope(self) -> str:
        """The one scope that it writes to."""
        return self._runtime.scope

    def _stream(self, scope_id: str) -> str:
        if scope_id != self._runtime.scope:
            raise BadInput(f"This runtime works for the scope {self._runtime.scope!r}, not for {scope_id!r}.")
        return f"ledger-{scope_id}"

    def checked(self, budget: Budget) -> Budget:
        self._runtime._access.check_person(NO_LIMITS)
        return super().checked(self._runtime._treasury.checked(budget))

    async def put(self, scope_id: str, command: Command) -> tuple[State, bool]:
        """Limits are set and lifted as the runtime does it. What is set aside is for those that reserve here, and for
        no session. Raises NotAPerson, and BadInput for any other command."""
        stream = self._stream(scope_id)
        match command:
            case SetBudget(budget=budget):
                before = (await self.state(scope_id)).version
                await self._runtime.set_budget(budget)
                after = await self.state(scope_id)
                return after, after.version > before
            case RemoveBudget(principal_id=principal, session_id=session):
                gone = await self._runtime.remove_budget(principal_id=principal, session_id=session)
                return await self.state(scope_id), gone
            case Allot(session_id=holder) if holder.startswith(RESERVED):
                await self._runtime._treasury.counted()
                self._holders.add(holder)
                self._runtime._treasury.recalls.outside.add(holder)  # asked back of nobody
            case ReturnAllotment(session_id=holder) if holder in self._holders:
                self._holders.discard(holder)
                self._runtime._treasury.recalls.outside.discard(holder)
            case RecordUsage():
                pass
            case _:
                raise BadInput(f"{command.type} is not for a program to put to a ledger.")
        key = f"usage:{command.entry}" if isinstance(command, RecordUsage) else None
        access = self._runtime._access
        reply = await access.kernel.ask(stream, command, key=key, by=access.who)
        return reply.states[0], bool(reply.events)

    async def state(self, scope_id: str) -> State:
        state: State = (await self._runtime._peek(self._stream(scope_id)))[0]
        return state

    async def entries(self, scope_id: str) -> list[UsageRecorded]:
        stored = self._runtime.log.read(self._stream(scope_id))
        found = [recorded.data for batch in stored for recorded in codec.unpack(batch)]
        return [entry for entry in found if isinstance(entry, UsageRecorded)]

    def now(self) -> int:
        return self._runtime.clock.now()

    def new_id(self) -> str:
        return self._runtime.clock.new_id()


class Ledger:
    """Limits over what a writer is told. ctx: anything with scope_id, principal_id, session_id, run_id and job_id."""

    def __init__(self, writer: Any = None) -> None:
        self.writer = InMemoryLedgerWriter() if writer is None else writer
        self._wanted: list[Budget] = []

    def set_budget(self, budget: Budget) -> None:
        """Set a limit; it is in force from the next check or reservation on. Raises BadInput, and NotAPerson where an
        agent or one of its tools sets it."""
        self._wanted.append(self.writer.checked(budget_of(budget)))

    async def check_budget(
        self,
        ctx: Any = None,
        *,
        pending_tokens: int = 0,
        pending_cost: str | int | float | Decimal = 0,
        pending_requests: int = 0,
        pending_tool_calls: int = 0,
    ) -> tuple[BudgetDecision, str]:
        """What the limits say to so much more, and why. It sets nothing aside: see `reserve`. A denial is recorded."""
        scope = await self._ready(ctx)
        want = _amount(pending_tokens, pending_cost, pending_requests, pending_tool_calls)
        state = await self.writer.state(scope)
        state = replace(state, now=max(state.now, self.writer.now()))
        judged = judge(state, *_whose(ctx), want, want)
        if judged.breach is not None:
            await self._write(
                ctx, LedgerEventType.BUDGET_CHECK, metadata={"decision": "deny", "why": judged.breach.text}
            )
            return BudgetDecision.DENY, judged.breach.text
        decision = BudgetDecision.DEGRADE if judged.degrade else BudgetDecision.WARN if judged.warned else None
        return decision or BudgetDecision.ALLOW, ", ".join(judged.warned)

    async def require_budget(self, ctx: Any = None, **pending: Any) -> BudgetDecision:
        """The same; raises BudgetExceededError where it is denied."""
        decision, why = await self.check_budget(ctx, **pending)
        if decision is BudgetDecision.DENY:
            raise BudgetExceededError(why)
        return decision

    @asynccontextmanager
    async def reserve(
        self,
        ctx: Any = None,
        *,
        tokens: int = 0,
        cost: str | int | float | Decimal = 0,
        requests: int = 0,
        tool_calls: int = 0,
    ) -> AsyncIterator[BudgetDecision]:
        """Set so much aside while the block runs, then give it back; what was used is recorded within it.

        Raises BudgetExceededError where there is too little. However many do so at once, no limit is passed. Where the
        process dies within the block, nobody knows what else was used: the next start counts what was set aside as
        used, less what was recorded in the block.
        """
        scope = await self._ready(ctx)
        want = _amount(tokens, cost, requests, tool_calls)
        holder, at = f"{RESERVED}{self.writer.new_id()}", self.writer.now()
        principal, _ = _whose(ctx)
        allot = Allot(
            session_id=holder, principal_id=principal, ask="w1", spent=NOTHING, want=want, least=want, at=at, last=True
        )
        state, _ = await self.writer.put(scope, allot)
        account = state.accounts[holder]
        if account.breach is not None:
            raise BudgetExceededError(account.breach.text)
        grant, outer = account.grant, _HOLDER.get()
        _HOLDER.set(holder)
        try:
            yield (
                BudgetDecision.DEGRADE
                if grant and grant.degrade
                else (BudgetDecision.WARN if grant and grant.warned else BudgetDecision.ALLOW)
            )
        finally:
            _HOLDER.set(outer)
            back = ReturnAllotment(session_id=holder, ask="w1", spent=NOTHING, at=self.writer.now())
            await self.writer.put(scope, back)

    async def record_model_usage(self, ctx: Any = None, usage: Any = None, **fields: Any) -> None:
        """Record what a model used, succeeded or not: `LedgerEvent.from_llm_usage`."""
        event = LedgerEvent.from_llm_usage({} if usage is None else usage, **{**self._of(ctx), **fields})
        await self.writer.write(event)

    async def record_tool_usage(self, ctx: Any = None, *, tool_name: str, duration_ms: float | None = None) -> None:
        """Record one call of a tool."""
        await self._write(ctx, LedgerEventType.TOOL_USAGE, tool_name=tool_name, duration_ms=duration_ms)

    async def get_usage(self, scope_id: str | None = None, principal_id: str | None = None) -> UsageRecord:
        """What was used: see `InMemoryLedgerWriter.get_usage`. scope_id: None for that of the writer."""
        usage: UsageRecord = await self.writer.get_usage(scope_id or self.writer.scope, principal_id)
        return usage

    async def list_events(self, scope_id: str | None = None, **only: Any) -> list[LedgerEvent]:
        """The entries, the newest first."""
        found: list[LedgerEvent] = await self.writer.list_events(scope_id or self.writer.scope, **only)
        return found

    async def _write(self, ctx: Any, kind: LedgerEventType, **fields: Any) -> None:
        await self.writer.write(LedgerEvent(**{**self._of(ctx), "type": kind, **fields}))

    def _of(self, ctx: Any) -> dict[str, Any]:
        names = ("scope_id", "principal_id", "session_id", "run_id", "job_id")
        named = {name: value for name in names if (value := getattr(ctx, name, None)) is not None}
        return {"scope_id": self.writer.scope, **named}

    async def _ready(self, ctx: Any) -> str:
        """The scope of a context, once the limits that were set are in force."""
        while self._wanted:
            budget = self._wanted[0]
            command = SetBudget(budget=budget, at=self.writer.now())
            try:
                await self.writer.put(budget.scope_id or self.writer.scope, command)
            except (BadInput, NotAPerson):
                self._wanted.pop(0)  # it can never be set, and is told once
                raise
            self._wanted.pop(0)
        return getattr(ctx, "scope_id", None) or str(self.writer.scope)


def _whose(ctx: Any) -> tuple[str, str]:
    return getattr(ctx, "principal_id", None) or "", getattr(ctx, "session_id", None) or ""


def _amount(tokens: int, cost: Any, requests: int, tools: int) -> Amount:
    for name, value in (("tokens", tokens), ("requests", requests), ("tool_calls", tools)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadInput(f"{name} must be a whole number from 0, not {value!r}.")
    return Amount(tokens, nanos(checked_dollars("cost", cost) or "0"), requests, tools)


_KINDS = {kind.value: kind for kind in LedgerEventType}


def _kind(given: object) -> str:
    if isinstance(given, str) and given in _KINDS:
        return _KINDS[given].value
    raise BadInput(f"type must be one of {', '.join(_KINDS)}, not {shown(given)}.")


def _known(kind: str) -> Any:
    """What an entry is about; as it stands in the log, where it is of no type that there is."""
    return _KINDS.get(kind, kind)


def _time(seconds: object, heard: int) -> int:
    """Microseconds UTC of a time in seconds, as it was told at `heard`."""
    latest = heard / 1_000_000 + AHEAD_MAX_S
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= latest:
        raise BadInput(
            "timestamp must be seconds since 1970 UTC (not milliseconds), no more than"
            f" {AHEAD_MAX_S} ahead of now, not {shown(seconds)}."
        )
    return int(seconds * 1_000_000)


def _metadata(given: object) -> dict[str, str] | None:
    if not isinstance(given, Mapping) or not all(isinstance(each, str) for pair in given.items() for each in pair):
        raise BadInput(f"metadata must be an object of texts, not {shown(given)}.")
    return dict(given) or None


def _event_of(scope_id: str, entry: UsageRecorded) -> LedgerEvent:
    return LedgerEvent(
        event_id=entry.entry,
        type=_known(entry.kind),
        timestamp=entry.at / 1_000_000,
        job_id=entry.job_id,
        run_id=entry.run_id,
        session_id=entry.session_id,
        scope_id=scope_id,
        principal_id=entry.principal_id,
        provider=entry.provider,
        model=entry.model,
        tool_name=entry.tool,
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        total_tokens=entry.total_tokens,
        cost=entry.cost,
        duration_ms=entry.duration_ms,
        metadata=dict(entry.metadata or {}),  # whoever gets it may change it
    )
