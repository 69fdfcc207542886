"""What the ledger says of a log: what was used, what it cost, and what nobody knows the price of."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.book import usage_of
from reenact.events.agent import (
    NOT_ASKED,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ToolSettled,
    TurnCompleted,
)
from reenact.events.budget import NOTHING
from reenact.events.content import Cost, Failure, Usage
from reenact.events.errors import BadInput
from reenact.events.ledger import UsageRecorded
from reenact.events.log import MemoryLog
from reenact.events.message import Erased, Event, Recorded, Unknown
from reenact.events.purse import AllotmentWanted
from reenact.projections.ledger import By, Ledger, Only, Spend
from reenact.projections.meter import LOST, ModelUse, ToolUse, amount_of, uses
from reenact.projections.projection import catch_up
from tests.histories import History, call, erase
from tests.projections.logs import log_of, logs, read

DAY_S = 86_400
USAGE = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400, cache_write_tokens=50, reasoning_tokens=20)


def cost(amount: str | None) -> Cost:
    return Cost(amount=amount, table="prices 1")


def answers(history: History, price: Cost | None, usage: Usage | None = USAGE, model: str = "big-1") -> History:
    """The model answers, counted and priced."""
    before = len(history.events)
    history.answers("Hello.", usage=usage)
    place = next(n for n in range(before, len(history.events)) if isinstance(history.events[n].data, ModelAnswered))
    told = history.events[place]
    history.events[place] = replace(told, data=replace(told.data, cost=price, model=model))
    return history


def fails(history: History, price: Cost | None, usage: Usage | None, *, retry_in_ms: int | None = None) -> History:
    before = len(history.events)
    history.fails("overloaded", retry_in_ms=retry_in_ms, usage=usage)
    told = history.events[before]
    assert isinstance(told.data, ModelFailed)
    history.events[before] = replace(told, data=replace(told.data, cost=price))
    return history


def ledger_of(*histories: Iterable[Recorded]) -> Ledger:
    ledger = Ledger()
    catch_up(log_of(*histories), ledger)
    return ledger


def test_a_call_is_entered_with_its_tokens_and_its_recorded_cost() -> None:
    history = answers(History().send("Hi"), cost("0.0123"))
    assert ledger_of(history).query("model") == [
        Spend(
            provider="scripted",
            model="big-1",
            calls=1,
            failed=0,
            unpriced=0,
            amount="0.0123",
            input_tokens=1000,
            output_tokens=100,
            cache_read_tokens=400,
            cache_write_tokens=50,
            reasoning_tokens=20,
        )
    ]


def test_money_is_added_exactly() -> None:
    history = History()
    for _ in range(10):
        answers(history.send("Hi"), cost("0.1"))
    answers(history.send("Hi"), cost("0.000000000000000001"))
    assert ledger_of(history).total().amount == "1.000000000000000001"


def test_what_has_no_price_is_never_shown_as_nothing() -> None:
    history = answers(History().send("Hi"), cost(None))
    [line] = ledger_of(history).query()
    assert (line.amount, line.unpriced, line.calls) == (None, 1, 1)
    assert ledger_of(history).total().amount is None


def test_what_has_no_price_is_counted_beside_what_has_one() -> None:
    history = answers(History().send("Hi"), cost("0.5"))
    answers(history.send("Hi"), cost(None))
    answers(history.send("Hi"), None, usage=None)
    total = ledger_of(history).total()
    assert (total.amount, total.unpriced, total.calls) == ("0.5", 2, 3)


def test_what_costs_nothing_costs_nothing() -> None:
    total = ledger_of(answers(History().send("Hi"), cost("0"))).total()
    assert (total.amount, total.unpriced) == ("0", 0)


def test_an_empty_ledger_is_not_unpriced() -> None:
    assert (Ledger().total().amount, Ledger().query(), Ledger().tools()) == ("0", [], [])


def test_a_failed_attempt_is_entered_and_costs_what_it_used() -> None:
    history = fails(History().send("Hi"), cost("0.2"), USAGE, retry_in_ms=10)
    answers(history, cost("0.3"))
    [asked, answered] = sorted(ledger_of(history).query(), key=lambda line: line.failed, reverse=True)
    assert (asked.model, asked.calls, asked.failed, asked.amount) == ("test", 1, 1, "0.2")
    assert (answered.model, answered.calls, answered.failed, answered.amount) == ("big-1", 1, 0, "0.3")


def test_a_failed_attempt_that_used_nothing_is_not_unpriced() -> None:
    total = ledger_of(fails(History().send("Hi"), None, None)).total()
    assert (total.calls, total.failed, total.unpriced, total.amount) == (1, 1, 0, "0")


def test_a_failed_attempt_that_used_tokens_without_a_price_is_unpriced() -> None:
    total = ledger_of(fails(History().send("Hi"), cost(None), USAGE)).total()
    assert (total.unpriced, total.amount, total.input_tokens) == (1, None, 1000)


def test_given_an_answer_that_broke_off_and_that_nobody_counted_it_is_unpriced() -> None:
    history = fails(History().send("Hi"), cost(None), None)
    other = Ledger(lambda usage, model, provider, at: cost("1"))
    catch_up(log_of(history), other)
    for total in (ledger_of(history).total(), other.total()):
        assert (total.unpriced, total.amount) == (1, None)


def test_given_an_attempt_that_was_not_made_it_is_no_call() -> None:
    cases: list[dict[str, Any]] = [{"unasked": True}, {"failure": NOT_ASKED}]
    for unasked in cases:
        history = fails(History().send("Hi"), None, None)
        [at] = [n for n, each in enumerate(history.events) if isinstance(each.data, ModelFailed)]
        history.events[at] = replace(history.events[at], data=replace(history.events[at].data, **unasked))
        assert ledger_of(history).total().calls == 0


def test_given_a_call_whose_process_died_it_is_failed_and_unpriced_once_it_is_made_again_or_another_comes() -> None:
    history = History().send("Hi")
    assert ledger_of(history).total().calls == 0, "it may yet end"
    answers(history.later(DAY_S).dies(), cost("0.5"))
    lost, answered = ledger_of(history).query(("day", "model"))
    assert (lost.day, lost.calls, lost.failed, lost.unpriced, lost.amount) == ("2025-06-15", 1, 1, 1, None)
    assert (answered.day, answered.calls, answered.failed, answered.unpriced) == ("2025-06-16", 1, 0, 0)
    asks = AllotmentWanted(ask="w1", ledger="default", spent=NOTHING, want=NOTHING, least=NOTHING)
    after: list[Event] = [asks, TurnCompleted(turn=1, reason="error"), Erased(name="turn_completed", key="k1")]
    for event in after:
        history = History().send("Hi")
        [called] = [each for each in history if isinstance(each.data, ModelCalled)]
        found = list(uses([*history, replace(called, data=event), replace(called, data=event)]))
        assert [(use.call, use.failure, use.unpriced) for use in found if isinstance(use, ModelUse)] == [
            ("m1", LOST, True)
        ]


def test_given_a_call_in_whose_place_another_is_made_or_whose_end_cannot_be_read_it_is_not_lost() -> None:
    selected = ModelSelected(model="scripted:other", provider="scripted", reason="fallback")
    for event, calls in ((selected, 0), (Unknown(name="model_answered", version=9, raw=b"x"), 0)):
        history = History().send("Hi")
        before = len(list(uses(history.batch("select_model", event))))
        assert len(list(uses(history.dies()))) - before == calls
    doubted = replace(selected, reason="budget")  # a cheaper one takes the place of a call that may have been made
    assert len(list(uses(History().send("Hi").batch("recover_effect", doubted).dies()))) == 1


TOKENS = st.integers(0, 3) | st.integers(0, 10**6)


@given(TOKENS, TOKENS, TOKENS)
def test_whatever_a_program_told_it_is_as_many_tokens_as_limits_count(read: int, written: int, total: int) -> None:
    told = UsageRecorded(
        entry="e1", kind="model_usage", at=1, input_tokens=read, output_tokens=written, total_tokens=total
    )
    [recorded] = History().send("Hi").events[:1]
    [use] = uses([replace(recorded, data=told)])
    counts = usage_of(told)
    assert isinstance(use, ModelUse) and counts is not None
    tokens = 0 if use.usage is None else use.usage.input_tokens + use.usage.output_tokens
    assert tokens == counts.tokens
    if use.usage is not None and read <= total:
        assert use.usage.input_tokens >= read, "what was thought and is in the total alone was written"


@pytest.mark.parametrize("model", ["gpt-5", "openai:gpt-5"])
def test_given_a_model_that_a_program_names_with_its_provider_it_is_that_model(model: str) -> None:
    told = UsageRecorded(entry="e1", kind="model_usage", at=1, total_tokens=1, provider="openai", model=model)
    [recorded] = History().send("Hi").events[:1]
    [use] = uses([replace(recorded, data=told)])
    assert isinstance(use, ModelUse)
    assert (use.asked, use.provider, use.model) == ("openai:gpt-5", "openai", "gpt-5")


def test_days_are_utc_and_come_in_order() -> None:
    history = answers(History(at=1_743_206_395_000_000).send("Hi"), cost("5"))  # 2025-03-28 23:59:55, and seconds later
    answers(history.later(10).send("Hi"), cost("1"))
    days = [(line.day, line.amount) for line in ledger_of(history).query("day")]
    assert days == [("2025-03-28", "5"), ("2025-03-29", "1")]


def test_other_groups_come_dearest_first() -> None:
    history = answers(History().send("Hi"), cost("1"), model="small")
    answers(history.send("Hi"), cost("10"), model="large")
    answers(history.send("Hi"), cost(None), model="unknown")
    lines = ledger_of(history).query("model")
    assert [(line.model, line.amount) for line in lines] == [("large", "10"), ("small", "1"), ("unknown", None)]


def test_a_call_belongs_to_the_job_whose_turn_it_was_made_in() -> None:
    history = History().send("one").send("two")
    answers(history, cost("1"))  # ends the first job, and begins the second in the same batch
    answers(history, cost("2"))
    lines = ledger_of(history).query("job")
    assert [(line.job_id, line.amount) for line in lines] == [("job_2", "2"), ("job_1", "1")]


def test_lines_can_be_narrowed_to_one_session_image_container_and_days() -> None:
    first = answers(History().send("Hi"), cost("1"))
    second = answers(History().later(3 * DAY_S).send("Hi"), cost("2"))
    ledger = ledger_of(first, second)
    assert [line.session_id for line in ledger.query("session")] == ["sess_2", "sess_1"]
    assert ledger.total(session_id="sess_1").amount == "1"
    assert ledger.total(image_id="img_1", container_id="acme", scope="default").amount == "3"
    assert ledger.total(image_id="another").calls == 0
    last = ledger.query("day")[-1].day
    assert ledger.total(since_day=last).amount == "2"
    assert ledger.total(until_day="2025-06-15").amount == "1"
    assert ledger.total(since_day="2025-06-15", until_day=last).amount == "3"


@pytest.mark.parametrize("only", [{"since_day": "yesterday"}, {"until_day": "2025-02-30"}, {"since_day": ""}])
def test_a_day_that_is_none_is_refused(only: Only) -> None:
    with pytest.raises(BadInput, match="is no day"):
        Ledger().query("model", **only)


def test_a_group_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(BadInput, match="not by colour"):
        Ledger().query("colour")  # type: ignore[arg-type]


def test_tools_are_counted_by_name_and_outcome() -> None:
    history = History().send("Hi")
    history.answers(
        call("refund", id="a"),
        call("refund", id="b"),
        call("look", id="c"),
        call("gone", id="d"),
        problems={3: "no such tool"},
    )
    history.settles("t1", duration_ms=5).settles("t2", outcome="error", duration_ms=7).settles("t3", outcome="denied")
    tools = {line.name: line for line in ledger_of(history).tools()}
    assert list(tools) == ["refund", "gone", "look"]
    assert (tools["refund"].calls, tools["refund"].outcomes) == (2, {"error": 1, "ok": 1})
    assert (tools["refund"].runs, tools["refund"].duration_ms) == (2, 12)
    assert (tools["gone"].runs, tools["gone"].outcomes) == (0, {"error": 1})
    assert ledger_of(history).tools(session_id="another") == []


def test_an_erased_answer_was_a_call_and_its_cost_is_not_known() -> None:
    history = answers(History().send("Hi"), cost("1"))
    version = next(each.version for each in history if isinstance(each.data, ModelAnswered))
    ledger = Ledger()
    for recorded in erase(history.events, version):
        ledger.apply(recorded)
    total = ledger.total()
    assert (total.calls, total.unpriced, total.amount) == (1, 1, None)


def test_another_price_table_can_be_tried_without_touching_what_was_recorded() -> None:
    def price(usage: Usage, model: str, provider: str, at: int) -> Cost:
        assert (model, provider) == ("big-1", "scripted")
        return Cost(amount=str(Decimal(usage.output_tokens) / 10), table="dearer")

    history = answers(History().send("Hi"), cost("1"))
    answers(history.send("Hi"), cost("1"), usage=None)
    log, dearer = log_of(history), Ledger(price)
    catch_up(log, dearer)
    assert dearer.total().amount == "10"
    assert dearer.total().unpriced == 1
    assert ledger_of(history).total().amount == "2"


def test_given_a_table_that_knows_a_model_as_it_was_asked_for_its_calls_are_priced_by_that() -> None:
    history = answers(History().send("Hi"), cost("1"), model="big-1-20250929")
    asked = next(use.asked for use in uses(history.events) if isinstance(use, ModelUse))

    def price(usage: Usage, model: str, provider: str, at: int) -> Cost:
        return cost("7" if f"{provider}:{model}" == asked else None)

    ledger = Ledger(price)
    catch_up(log_of(history), ledger)
    assert (ledger.total().amount, ledger.total().unpriced) == ("7", 0)
    assert [line.model for line in ledger.query("model")] == ["big-1-20250929"]


@pytest.mark.parametrize("amount", ["nonsense", "NaN", "Infinity", "-1", "1e999999", "1E-99", "", "0." + "1" * 70])
def test_an_amount_that_is_no_money_is_unpriced(amount: str) -> None:
    assert amount_of(cost(amount)) is None


# -- laws, over any log --


def exactly(lines: Iterable[Spend]) -> tuple[Fraction, tuple[int, ...]]:
    """The sum of some lines."""
    lines = list(lines)
    counts = ("calls", "failed", "unpriced", "input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")
    return (
        sum((Fraction(line.amount or 0) for line in lines), Fraction(0)),
        tuple(sum(getattr(line, count) for line in lines) for count in counts),
    )


@given(logs(), st.permutations(get_args(By)).map(lambda order: order[:3]))
def test_however_it_is_grouped_it_is_the_same_money(log: MemoryLog, by: list[By]) -> None:
    ledger = Ledger()
    catch_up(log, ledger)
    assert exactly(ledger.query(by)) == exactly([ledger.total()])


@given(logs())
def test_the_total_is_what_the_events_say(log: MemoryLog) -> None:
    """Counted straight off the events, without a ledger."""
    ledger, events = Ledger(), [recorded.data for recorded in read(log)]
    catch_up(log, ledger)
    ended = [event for event in events if isinstance(event, ModelAnswered | ModelFailed)]
    known = [event.cost for event in ended if event.cost is not None and amount_of(event.cost) is not None]
    total = ledger.total()
    lost, under_way = 0, set()
    for recorded in read(log):
        if isinstance(recorded.data, ModelCalled | TurnCompleted):
            lost += recorded.stream in under_way
        if isinstance(recorded.data, ModelCalled):
            under_way.add(recorded.stream)
        elif isinstance(recorded.data, TurnCompleted) or getattr(recorded.data, "name", recorded.type) in (
            "model_answered",
            "model_failed",
        ):
            under_way.discard(recorded.stream)
    assert total.calls == len(ended) + lost
    assert Fraction(total.amount or 0) == sum((Fraction(str(amount_of(price))) for price in known), Fraction(0))
    assert (total.amount is None) == (total.unpriced > 0 and not known)
    assert total.input_tokens == sum(event.usage.input_tokens for event in ended if event.usage)
    assert sum(tool.calls for tool in ledger.tools()) == sum(isinstance(event, ToolSettled) for event in events)


@given(logs())
def test_every_use_is_in_the_ledger_once_and_no_number_is_a_float(log: MemoryLog) -> None:
    ledger, again = Ledger(), Ledger()
    catch_up(log, ledger)
    for use in uses(read(log)):
        again.add(use)
        assert isinstance(use, ModelUse | ToolUse)
        assert not any(isinstance(value, float) for value in msgspec.structs.astuple(use))
    for by in get_args(By):
        assert again.query(by) == ledger.query(by)
        for line in ledger.query(by):
            assert not any(isinstance(value, float) for value in msgspec.structs.astuple(line))
            assert line.amount is None or format(Decimal(line.amount), "f") == line.amount
    assert again.tools() == ledger.tools()


def test_sessions_do_not_get_into_each_others_accounts() -> None:
    """However the batches of two sessions interleave."""
    one, two = answers(History().send("Hi"), cost("1")), answers(History(at=5).send("Hi"), cost("2"), model="other")
    events = [list(log_events) for log_events in (one.events, [rename(each) for each in two.events])]
    for order in set(permutations([0, 0, 0, 1, 1, 1])):
        ledger, left = Ledger(), [list(each) for each in events]
        for turn in order:
            for _ in range(len(events[turn]) // 3):
                ledger.apply(left[turn].pop(0))
        for rest in left:
            for recorded in rest:
                ledger.apply(recorded)
        lines = [(line.session_id, line.model, line.amount) for line in ledger.query(("session", "model"))]
        assert lines == [("sess_9", "other", "2"), ("sess_1", "big-1", "1")]


def rename(recorded: Recorded) -> Recorded:
    context = replace(recorded.context, session_id="sess_9")
    return replace(recorded, stream="session-sess_9", head=replace(recorded.head, context=context))


def test_a_log_that_makes_no_sense_is_entered_as_far_as_it_goes() -> None:
    """An answer nobody asked for, a call that never began, an erasure before anything."""
    failure = Failure(code="x", message="x")
    events: list[Event] = [
        Erased(name="model_failed", key="k"),
        ModelFailed(call="m9", attempt=1, failure=failure, usage=USAGE, cost=cost("1")),
        ToolSettled(tool="t9", outcome="ok", output=""),
        ModelAnswered(call="m9", parts=(), stop_reason="end_turn", usage=None, model="", cost=cost("2")),
        ModelCalled(call="m1", attempt=1, upto=1, image_version=1, model="no-colon", context=""),
        ModelAnswered(call="m1", parts=(), stop_reason="end_turn", usage=None, model="", cost=cost("3")),
    ]
    ledger = Ledger()
    for recorded in History(wakes=False).batch("anything", *events):
        ledger.apply(recorded)
    assert ledger.total().calls == 4
    assert ledger.total().amount == "6"
    assert [line.name for line in ledger.tools()] == [""]
