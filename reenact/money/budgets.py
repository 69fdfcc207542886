"""A ledger for programs that use models outside of a runtime: limits, checks, and what was used, over the same rules.

`Ledger(writer)` counts what it is told; with `RuntimeLedgerWriter(runtime)` the facts go to the ledger of the runtime's
scope, beside what its own sessions use. A check alone can be outrun by another: `reserve` sets aside first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from msgspec.structs import replace

from ..actors.judge import in_the_way, judge
from ..adapters.tools.acting import origin
from ..events.budget import NOTHING, Amount, Budget, budget_of, nanos, used_dollars
from ..events.errors import BadInput, OverBudget
from ..events.ledger import (
    RESERVED,
    Allot,
    ReturnAllotment,
)
from .entries import LedgerEvent, LedgerEventType, UsageRecord
from .order import Owner
from .writers import HOLDER, InMemoryLedgerWriter

BudgetExceededError = OverBudget


class BudgetDecision(StrEnum):
    """What the limits say, from the mildest to the worst."""

    ALLOW = "allow"
    WARN = "warn"
    DEGRADE = "degrade"
    DENY = "deny"


class _Wanted(NamedTuple):
    """A limit that is not in force yet, in whose context it was set, and its number in the order of all that are."""

    budget: Budget
    context: Context
    asked: int


class Ledger:
    """Limits over what a writer is told. ctx: anything with scope_id, principal_id, session_id, run_id and job_id, such
    as the `ToolContext` of a call. Inside of a tool, where no principal is named, it is whoever sent its job."""

    def __init__(self, writer: Any = None) -> None:
        self.writer = InMemoryLedgerWriter() if writer is None else writer
        self._wanted: list[_Wanted] = []
        self._setting = asyncio.Lock()
        self._ending: set[asyncio.Task[Any]] = set()

    def set_budget(self, budget: Budget) -> None:
        """Set a limit; it is in force from the next check or reservation on, whoever's that is. Raises BadInput, and
        NotAPerson where an agent or one of its tools sets it. One that turns out only then to be none, such as one that
        degrades where no image names a cheaper model, has everybody refused who asks, until another is set for it or
        it is lifted, here or by the runtime: what was asked for last holds."""
        wanted = self.writer.checked(budget_of(budget))
        others = [each for each in self._wanted if self._owner(each.budget) != self._owner(wanted)]
        self._wanted = [*others, _Wanted(wanted, copy_context(), self.writer.order.asked())]

    async def check_budget(
        self,
        ctx: Any = None,
        *,
        pending_tokens: int = 0,
        pending_cost: str | int | float | Decimal = 0,
        pending_requests: int | None = None,
        pending_tool_calls: int = 0,
    ) -> tuple[BudgetDecision, str]:
        """What the limits say to so much more, and why. It sets nothing aside: see `reserve`. A denial is recorded.
        What a runtime's sessions hold counts here, also of those at rest; `reserve` asks it back of them.

        It asks for one request of a model, unless another number is named or only calls of tools are. A request uses
        some tokens and some money, whether they are named or not: a limit of them that is used up denies it.
        """
        scope = await self._ready(ctx)
        want = _pending(pending_tokens, pending_cost, pending_requests, pending_tool_calls)
        state = await self.writer.state(scope)
        state = replace(state, now=max(state.now, self.writer.now()))
        principal, session = _whose(ctx, scope)
        judged = judge(state, principal, f"{RESERVED}:{session}", want, want)  # as what would be set aside for it
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

        What is recorded is taken from it, so it counts once. Nothing is set aside of what is not named, requests too.
        Raises BudgetExceededError where there is too little, also of what a runtime's sessions at rest were asked to
        give back. However many do so at once, no limit is passed. Where the
        process dies within the block, nobody knows what else was used: the next start counts what was set aside as
        used, less what was recorded in the block.
        """
        scope = await self._ready(ctx)
        want = _amount(tokens, cost, requests, tool_calls)
        principal, session = _whose(ctx, scope)
        holder, at = f"{RESERVED}{self.writer.new_id()}:{session}", self.writer.now()
        allot = Allot(
            session_id=holder, principal_id=principal, ask="w1", spent=NOTHING, want=want, least=want, at=at, last=True
        )
        back = ReturnAllotment(session_id=holder, ask="w1", spent=NOTHING, at=at)
        allotting = asyncio.ensure_future(self.writer.put(scope, allot))
        try:
            state, _ = await asyncio.shield(allotting)
        except asyncio.CancelledError:
            await self._whole(self._undone(scope, allotting, back))
            raise
        account = state.accounts.get(holder)
        if account is None:  # a ledger keeps none of one that it denies
            breach = in_the_way(state, allot)
            assert breach is not None, "what is denied has a reason"
            raise BudgetExceededError(breach.text)
        grant, outer = account.grant, HOLDER.get()
        HOLDER.set(holder)
        try:
            yield (
                BudgetDecision.DEGRADE
                if grant and grant.degrade
                else (BudgetDecision.WARN if grant and grant.warned else BudgetDecision.ALLOW)
            )
        finally:
            HOLDER.set(outer)
            await self._whole(self.writer.put(scope, replace(back, at=self.writer.now())))

    async def _undone(self, scope: str, allotting: asyncio.Future[Any], back: ReturnAllotment) -> None:
        """Give back what was set aside for a block that is not entered, once it is."""
        with suppress(Exception):  # whoever asked was cancelled, and is not told what else failed
            await allotting
            await self.writer.put(scope, replace(back, at=self.writer.now()))

    async def _whole(self, work: Coroutine[Any, Any, Any]) -> None:
        """Wait for what goes on to its end, also where whoever waits is cancelled."""
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        await asyncio.shield(task)

    async def record_model_usage(self, ctx: Any = None, usage: Any = None, **fields: Any) -> None:
        """Record what a model used, succeeded or not: `LedgerEvent.from_llm_usage`. Where no cost is told, it is the
        list price of provider and model; raises BadInput where there is none and a limit of money needs one."""
        event = LedgerEvent.from_llm_usage(usage, **{**self._of(ctx), **fields})
        await self.writer.write(event)

    async def record_tool_usage(self, ctx: Any = None, *, tool_name: str, duration_ms: float | None = None) -> None:
        """Record one call of a tool."""
        await self._write(ctx, LedgerEventType.TOOL_USAGE, tool_name=tool_name, duration_ms=duration_ms)

    async def get_usage(self, scope_id: str | None = None, principal_id: str | None = None) -> UsageRecord:
        """What was used: see `InMemoryLedgerWriter.get_usage`. scope_id: None for that of the writer."""
        usage: UsageRecord = await self.writer.get_usage(scope_id or self.writer.scope, principal_id)
        return usage

    async def list_events(self, scope_id: str | None = None, **only: Any) -> list[LedgerEvent]:
        """The entries that programs told, the newest first: see `InMemoryLedgerWriter.list_events`."""
        found: list[LedgerEvent] = await self.writer.list_events(scope_id or self.writer.scope, **only)
        return found

    async def _write(self, ctx: Any, kind: LedgerEventType, **fields: Any) -> None:
        await self.writer.write(LedgerEvent(**{**self._of(ctx), "type": kind, **fields}))

    def _of(self, ctx: Any) -> dict[str, Any]:
        names = ("scope_id", "principal_id", "session_id", "run_id", "job_id")
        named = {name: value for name in names if (value := getattr(ctx, name, None)) is not None}
        return {"scope_id": self.writer.scope, **named}

    async def _ready(self, ctx: Any) -> str:
        """The scope of a context, once the limits that were set are in force, whoever sets them."""
        if self._wanted:
            async with self._setting:
                await self._set_wanted()
        return getattr(ctx, "scope_id", None) or str(self.writer.scope)

    def _owner(self, budget: Budget) -> Owner:
        return budget.scope_id or self.writer.scope, budget.principal_id, budget.session_id

    async def _set_wanted(self) -> None:
        while self._wanted:
            wanted = self._wanted[0]  # it stays until it is in force: till then nobody is let by
            if not self.writer.order.is_late(self._owner(wanted.budget), wanted.asked):
                putting = self.writer.limit(wanted.budget, wanted.asked)
                # As whoever set it: the first to ask may be a tool.
                await asyncio.create_task(putting, context=wanted.context)
            self._wanted = [each for each in self._wanted if each is not wanted]  # another may have been set meanwhile


def _whose(ctx: Any, scope: str) -> tuple[str, str]:
    return getattr(ctx, "principal_id", None) or origin(scope), getattr(ctx, "session_id", None) or ""


def _pending(tokens: int, cost: Any, requests: int | None, tools: int) -> Amount:
    """What a check asks for, with what goes without saying."""
    want = _amount(tokens, cost, requests or 0, tools)
    if want.tools and want == Amount(tools=want.tools):
        return want
    asked = 1 if requests is None else want.requests
    return Amount(max(1, want.tokens), max(1, want.cost), asked, want.tools)


def _amount(tokens: int, cost: Any, requests: int, tools: int) -> Amount:
    for name, value in (("tokens", tokens), ("requests", requests), ("tool_calls", tools)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadInput(f"{name} must be a whole number from 0, not {value!r}.")
    return Amount(tokens, nanos(used_dollars("cost", cost) or "0"), requests, tools)
