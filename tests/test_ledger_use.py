"""A ledger as programs use it: many at once, what they set aside, what they check, what they record."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from reenact import Budget, BudgetDecision, Ledger, RuntimeLedgerWriter
from reenact.runtime import Runtime
from tests.runtimes import run

# -- limits that were set, and many who are the first --


def test_given_limits_that_are_not_in_force_yet_when_many_check_at_once_all_are_held_to_them() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        for number in range(4):
            book.set_budget(Budget(principal_id=f"p{number}", max_requests_daily=5))
        last = SimpleNamespace(principal_id="p3")
        said = await asyncio.gather(*(book.check_budget(last, pending_requests=6) for _ in range(50)))
        assert {decision for decision, _ in said} == {BudgetDecision.DENY}
        assert [budget.principal_id for budget in opened.budgets] == ["p0", "p1", "p2", "p3"]

    run(work)


def test_given_a_check_that_is_cancelled_while_limits_are_set_the_next_finds_them_in_force() -> None:
    async def work(opened: Runtime) -> None:
        book = Ledger(RuntimeLedgerWriter(opened))
        for number in range(3):
            book.set_budget(Budget(principal_id=f"p{number}", max_requests_daily=5))
        first = asyncio.ensure_future(book.check_budget())
        second = asyncio.ensure_future(book.check_budget(SimpleNamespace(principal_id="p2"), pending_requests=6))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second)[0] is BudgetDecision.DENY
        assert [budget.principal_id for budget in opened.budgets] == ["p0", "p1", "p2"]

    run(work)
