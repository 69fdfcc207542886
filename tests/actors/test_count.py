"""What was used before anything was limited: what a ledger owes and is told, and what sessions say of themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import given as for_all
from msgspec.structs import replace

from reenact.actors.book import SCOPE
from reenact.actors.tally import Tally
from reenact.events.agent import AgentConfigured, ModelCalled, TurnCompleted
from reenact.events.budget import NOTHING, UNCOUNTED, Amount, Breach, Budget, Grant, Terms
from reenact.events.ledger import (
    Allotted,
    AwaitUsage,
    BudgetSet,
    Counted,
    RecordCount,
    RemoveBudget,
    SetBudget,
    UsageAwaited,
    UsageCounted,
)
from reenact.events.message import Erased, Head, Recorded
from reenact.events.purse import AllotmentReleased, AllotmentTaken, AllotmentWanted, BudgetReserved
from reenact.events.session import Definition, JobStarted
from reenact.projections.ledger import Ledger
from reenact.projections.meter import LOST, ModelUse, ToolUse, uses
from tests.actors.test_ledger import DAY_US, NOON, allot, back, denied, granted, ledger
from tests.given import Given
from tests.histories import History, anything, turns


def first(**limits: Any) -> SetBudget:
    """A limit that is set as a runtime does it."""
    return SetBudget(budget=Budget(**limits), at=NOON, counts=True)


def used(session: str = "s", tokens: int = 0, *, principal: str = "ann", **fields: Any) -> Counted:
    amount = Amount(tokens, 0, 1, 0) if tokens else NOTHING
    fields.setdefault("used_monthly", amount)
    fields.setdefault("used_daily", amount)
    return Counted(session_id=session, principal_id=principal, used=amount, **fields)


def counts(*entries: Counted, count: int = 1, at: int = NOON, done: bool = True, upto: int = 9) -> RecordCount:
    return RecordCount(count=count, upto=upto, at=at, entries=entries, done=done)


def sums(stream: Given, *key: str) -> Any:
    return stream.states[0].sums[key or SCOPE]


# -- what is owed --


def test_the_first_limit_owes_a_count_and_nothing_is_allotted_before_it() -> None:
    stream = ledger().when(first(max_tokens_total=100)).owes("count:1")
    stream.when(allot(tokens=1, last=False)).then_nothing()
    stream.when(counts(used("t", 80))).then(UsageCounted).owes()
    assert granted(stream.when(allot(tokens=20))).amount.tokens == 20
    assert denied(stream.when(allot("u", tokens=1))).used == 100


def test_who_can_wait_no_longer_is_told_that_it_is_not_counted() -> None:
    stream = ledger(first(max_tokens_total=100)).when(allot(tokens=1))
    assert denied(stream) == Breach(code=UNCOUNTED, limit="ledger", of="scope")
    assert "not counted yet" in denied(stream).text


def test_a_limit_beside_others_owes_no_count_and_one_after_all_were_lifted_does() -> None:
    stream = ledger(first(max_tokens_total=100), counts())
    stream.when(first(max_tokens_total=90)).then(BudgetSet).owes()
    stream.when(SetBudget(budget=Budget(session_id="s", max_tokens_total=9), at=NOON, counts=True)).owes()
    stream.when(RemoveBudget(at=NOON)).owes()
    stream.when(RemoveBudget(session_id="s", at=NOON)).owes()
    stream.when(first(max_tokens_total=100))
    [effect] = stream.owed
    assert (effect.id, effect.after) == (f"count:{stream.version}", 9)  # type: ignore[attr-defined]


def test_a_count_that_is_not_done_is_no_longer_owed_when_nothing_is_limited() -> None:
    stream = ledger(first(max_tokens_total=100)).when(RemoveBudget(at=NOON)).owes()
    stream.when(counts(used("s", 5))).then_nothing()


def test_limits_that_were_set_without_a_count_lead_to_one_with_the_next_that_asks_for_it() -> None:
    stream = ledger(SetBudget(budget=Budget(max_tokens_total=100), at=NOON), allot("a", tokens=90))
    stream.owes()
    assert denied(stream.when(allot("b", tokens=20))).used == 90
    stream.when(first(max_tokens_total=200)).owes(f"recall:{stream.version}", f"count:{stream.version}")


# -- what is told --


def test_what_is_told_counts_for_the_scope_the_principal_and_the_session_in_its_windows() -> None:
    entry = used("s", 80, used_daily=Amount(10, 0, 1, 0), used_monthly=Amount(30, 0, 1, 0))
    stream = ledger(first(max_tokens_total=100)).when(counts(entry))
    for key in (SCOPE, ("principal", "ann"), ("session", "s")):
        found = sums(stream, *key)
        assert (found.total.tokens, found.monthly.tokens, found.daily.tokens) == (80, 30, 10)


def test_what_is_told_twice_counts_once_and_more_counts_as_the_difference() -> None:
    stream = ledger(first(max_tokens_total=100)).when(counts(used("s", 80), done=False)).then(UsageCounted)
    stream.when(counts(used("s", 80), done=False)).then_nothing()
    stream.when(counts(used("s", 95), used("t", 1)))
    assert sums(stream).total == Amount(96, 0, 2, 0) and sums(stream).daily.tokens == 96


def test_a_count_that_is_told_a_day_late_counts_in_no_window_of_that_day() -> None:
    stream = ledger(first(max_tokens_total=100)).when(counts(done=False, at=NOON + 40 * DAY_US, count=1))
    stream.when(counts(used("s", 80, used_daily=Amount(9), used_monthly=Amount(9))))
    assert sums(stream).daily.tokens == 9
    later = ledger(first(max_tokens_total=100), counts()).when(allot("x", tokens=1, at=NOON + 40 * DAY_US))
    later.when(RemoveBudget(at=NOON)).when(first(max_tokens_total=100))
    later.when(counts(used("s", 80), count=later.version))
    assert (sums(later).total.tokens, sums(later).daily.tokens, sums(later).monthly.tokens) == (80, 0, 0)


def test_of_an_older_count_nothing_is_taken() -> None:
    stream = ledger(first(max_tokens_total=100)).when(counts(used("s", 80), count=7)).then_nothing()
    stream.when(counts(used("s", 80), count=-1)).then_nothing()
    stream.when(counts(used("s", 80), count=0, done=True)).then_nothing()


def test_what_a_purse_spent_before_is_told_once_by_the_count_or_by_the_session() -> None:
    spent = Amount(50, 0, 1, 0)
    [entry] = (replace(part, spent_daily=NOTHING) for part in parts("s", ann=spent))
    stream = ledger(first(max_tokens_total=100)).when(counts(entry))
    assert sums(stream).total == spent and sums(stream).daily == NOTHING
    stream.when(allot(tokens=10, spent=spent)).then(Allotted)
    assert sums(stream).total == spent, "it asks with all that it ever spent, which is known"
    told = ledger(allot(tokens=60), back(spent=spent), first(max_tokens_total=100))
    told.when(counts(entry, count=told.version))
    assert sums(told).total == spent, "it had told it itself"


def parts(session: str, **spent: Amount) -> list[Counted]:
    """What its purse spent for each of several principals."""
    whole = sum(spent.values(), NOTHING)
    return [
        Counted(session_id=session, principal_id=name, spent=each, spent_daily=each, spent_monthly=each, whole=whole)
        for name, each in spent.items()
    ]


def test_what_a_purse_spent_for_several_counts_for_each_as_far_as_nobody_told_it() -> None:
    def calls(n: int) -> Amount:
        return Amount(0, 0, n)

    stream = ledger(first(max_tokens_total=100)).when(counts(*parts("s", ann=calls(8), bob=calls(1))))
    assert [sums(stream, "principal", name).total.requests for name in ("ann", "bob")] == [8, 1]
    stream.when(allot(principal="bob", tokens=9, spent=calls(9))).then(Allotted)
    stream.when(back(spent=calls(11)))
    stream.when(RemoveBudget(at=NOON)).when(first(max_tokens_total=100))
    stream.when(counts(*parts("s", ann=calls(9), bob=calls(5)), count=stream.version))
    assert [sums(stream, "principal", name).daily.requests for name in ("ann", "bob")] == [9, 5], "bob told two of them"
    assert sums(stream).total.requests == sums(stream, "session", "s").total.requests == 14


def test_what_was_counted_for_one_is_not_counted_again_when_it_is_told_of_another() -> None:
    """For whom it was has been erased since."""

    def calls(n: int) -> Amount:
        return Amount(0, 0, n)

    stream = ledger(first(max_tokens_total=100)).when(counts(*parts("s", bob=calls(9))))
    assert sums(stream, "principal", "bob").total.requests == 9
    stream.when(RemoveBudget(at=NOON)).when(first(max_tokens_total=100))
    stream.when(counts(*parts("s", ann=calls(10), bob=calls(1)), count=stream.version))
    assert sums(stream).total.requests == 11, "two are new"


def test_what_is_spent_of_an_allotment_that_is_held_is_told_by_the_session() -> None:
    stream = ledger(allot(tokens=60), first(max_tokens_total=100))
    spent = Amount(50, 0, 1, 0)
    stream.when(counts(*parts("s", ann=spent), count=2))
    assert sums(stream).total == NOTHING and sums(stream).out.tokens >= 60
    stream.when(back(spent=spent))
    assert sums(stream).total == spent


# -- what is under way --


def test_a_session_with_a_call_under_way_is_owed_until_it_has_ended() -> None:
    stream = ledger(first(max_tokens_total=100)).when(counts(used("s", 20, open=True), used("t", 5))).owes("s:count")
    assert granted(stream.when(allot("t", tokens=10))).amount.tokens >= 10, "nobody waits for it"
    assert denied(stream.when(allot("s", tokens=1))).code == UNCOUNTED, "but itself, a moment"
    stream.when(counts(used("s", 20, open=True), count=0, done=False)).then_nothing().owes("s:count")
    stream.when(counts(used("t", 9), count=0, done=False)).then_nothing()
    stream.when(counts(used("s", 70), count=0, done=False)).then(UsageCounted).owes()
    assert sums(stream).total.tokens == 75
    stream.when(counts(used("s", 99), count=0, done=False)).then_nothing()


def test_it_is_owed_whether_or_not_it_used_anything_and_whatever_is_lifted() -> None:
    blank = Counted(session_id="s", principal_id="")
    stream = ledger(first(max_tokens_total=100)).when(counts(Counted(session_id="s", principal_id="", open=True)))
    stream.when(RemoveBudget(at=NOON)).owes("s:count")
    stream.when(counts(blank, count=0, done=False)).then(UsageCounted).owes()
    assert not stream.states[0].sums


def test_what_is_told_of_one_session_in_parts_leaves_it_owed_where_any_part_does_in_whatever_order() -> None:
    ended, still = used("s", 80), used("s", 3, principal="bob", open=True)
    for told in ((ended, still), (still, ended)):
        stream = ledger(first(max_tokens_total=100), counts(used("s", 1, open=True)))
        stream.when(counts(*told, count=0, done=False)).then(UsageCounted).owes("s:count")
        stream.when(counts(*told, count=0, done=False)).then_nothing()


def test_who_set_out_before_it_could_hear_of_a_limit_is_awaited_too() -> None:
    late = AwaitUsage(session_id="s", at=NOON)
    ledger().when(late).then_nothing()
    stream = ledger(first(max_tokens_total=100)).when(late).then(UsageAwaited).owes("s:count", "count:1")
    stream.when(late).then_nothing()
    stream.when(counts(used("s", 20))).owes("s:count"), "the count may have read the log before"


# -- what a session says of itself --


def tally(*events: Any, batch: str = "b") -> Tally:
    found = Tally(NOON)
    for n, event in enumerate(events, start=1):
        found.see(Recorded(n, "session-s", n, 0, 1, event, Head(id=batch, at=NOON, asked="x")))
    return found


def test_what_is_erased_was_a_call_and_no_more_is_known() -> None:
    gone = [Erased(name="model_called", key="k"), Erased(name="model_answered", key="k")]
    [entry] = tally(*gone).entries("s")
    assert (entry.used, entry.open) == (Amount(requests=1), False)
    assert tally(gone[0]).open
    aside = Erased(name="budget_reserved", key="k")
    called = ModelCalled(call="m1", attempt=1, upto=1, image_version=1, model="scripted:any", context="")
    assert not list(tally(aside, called, gone[1]).entries("s")), "something was set aside for it, whatever it was"


@for_all(history=turns())
def test_a_session_says_what_the_cost_projection_says_of_it(history: History) -> None:
    """Tokens and requests of the ends of calls, and the calls of tools that were begun. Of a call whose process died
    nobody knows what it used."""
    found, costs, begun = Tally(history.at), Ledger(), 0
    for recorded in history:
        found.see(recorded)
        costs.apply(recorded)
    begun = sum(use.runs > 0 for use in uses(history) if isinstance(use, ToolUse))
    total, said = costs.total(), sum((entry.used for entry in found.entries("s")), NOTHING)
    assert said.tokens == total.input_tokens + total.output_tokens
    lost = sum(use.failure == LOST for use in uses(history) if isinstance(use, ModelUse))
    assert said.requests == total.calls - lost
    assert said.tools >= begun and (history.job is not None or said.tools == begun)


@for_all(events=anything())
def test_it_never_raises(events: Any) -> None:
    found = Tally(NOON)
    for recorded in events:
        found.see(recorded)
    list(found.entries("s"))


def test_a_session_is_open_until_a_ledger_hears_of_what_it_spends() -> None:
    def configured(ledger: str | None) -> AgentConfigured:
        terms = None if ledger is None else Terms(ledger=ledger)
        return AgentConfigured(definition=Definition(image_version=1, model="scripted:any", terms=terms))

    works = [configured(None), JobStarted(job_id="j")]
    assert tally(*works).open
    assert not tally(*works, configured("x")).open, "nothing was spent yet"
    assert not tally(*works, TurnCompleted(turn=1, reason="completed", stop_reason=None, steps=1)).open
    reserved = BudgetReserved(call="m1", tokens=5, cost=1, max_tokens=5)
    assert tally(*works, configured("x"), reserved).open, "of what is set aside nobody has told"
    asks = AllotmentWanted(ask="w1", ledger="x", spent=Amount(5, 1, 1), want=NOTHING, least=NOTHING)
    assert not tally(*works, configured("x"), reserved, asks).open, "its asking tells all"
    taken = AllotmentTaken(ask="w1", grant=Grant(amount=Amount(50, 10, 3)))
    held = tally(*works, configured("x"), reserved, asks, taken, reserved)
    assert not held.open
    released = AllotmentReleased(ask="w1", spent=Amount(5, 1, 1), kept=Amount(5, 1, 1))
    held.see(Recorded(9, "session-s", 9, 0, 1, released, Head(id="z", at=NOON, asked="x")))
    assert not held.open
