"""What `verify` says of money, from events alone: what a broken ledger did is found, and nothing in a sound one."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from hypothesis import given as for_all
from hypothesis import strategies as st

from reenact.actors import book, judge
from reenact.actors.balance import Balance, Changes
from reenact.events.agent import AgentConfigured, ModelCalled
from reenact.events.budget import NOTHING, Amount, Budget, Grant, Terms
from reenact.events.ledger import AllotmentReturned, BudgetSet, RecordUsage
from reenact.events.message import Event, Head, Recorded
from reenact.events.purse import AllotmentReleased, AllotmentTaken, AllotmentWanted, BudgetReserved
from reenact.events.session import Definition
from tests.actors.ledgers import DAY_US, NOON, allot, back, ledger, limit
from tests.given import Given


def told(*events: Event, batch: str = "b") -> list[str]:
    balance = Balance()
    head = Head(id=batch, at=1, asked="x")
    return [
        what
        for n, event in enumerate(events)
        for what in balance.see(Recorded(n, "ledger-x", n + 1, n, 1, event, head))
    ]


def history(stream: Given, commands: list[Any]) -> list[Event]:
    events: list[Event] = []
    for command in commands:
        events += stream.when(command).events
    return events


@for_all(data=st.data())
def test_a_sound_ledger_is_found_sound(data: st.DataObject) -> None:
    """Two tellings of the same law, written apart: what the one allots the other finds allowed."""
    names = st.sampled_from(["a", "b", "reserved:1:a", "reserved:2:a", "reserved:3:"])
    spent: dict[str, Amount] = {}
    asks: dict[str, int] = {}
    commands: list[Any] = [limit(max_tokens_daily=60, max_requests_per_minute=4, max_cost_monthly="0.00000005")]
    commands.append(limit(principal_id="ann", max_tokens_total=90))
    commands.append(limit(session_id="a", max_tokens_daily=15))
    at = NOON
    for _ in range(data.draw(st.integers(1, 25))):
        name = data.draw(names)
        at += data.draw(st.sampled_from([0, 1_000_000, 50_000_000, DAY_US, 20 * DAY_US]))
        more = Amount(*(data.draw(st.integers(0, 9)) for _ in range(4)))
        spent[name] = spent.get(name, NOTHING) + more
        match data.draw(st.sampled_from(["ask", "ask", "back", "outside"])):
            case "ask":
                asks[name] = asks.get(name, 0) + 1
                want = {of: data.draw(st.integers(0, 20)) for of in Amount.__struct_fields__}
                principal = data.draw(st.sampled_from(["ann", "bob"]))
                commands.append(allot(name, f"w{asks[name]}", **want, spent=spent[name], at=at, principal=principal))
            case "back":
                kept = Amount(*(data.draw(st.integers(0, 30)) for _ in range(4)))
                commands.append(back(name, f"w{asks.get(name, 0)}", spent=spent[name], kept=kept, at=at))
            case "outside":
                holder = data.draw(st.sampled_from([None, name]))
                usage = RecordUsage(
                    entry="e", kind="model_usage", at=at, heard=at, principal_id="ann", total_tokens=7, holder=holder
                )
                commands.append(usage)
    assert told(*history(ledger(), commands)) == []


def test_what_a_ledger_that_only_checks_allotted_is_found() -> None:
    with patch.object(judge, "used", lambda sums, limit, now: (getattr(sums.total, limit.of), 0)):
        events = history(ledger(), [limit(max_tokens_total=100), allot("a", tokens=60), allot("b", tokens=60)])
    [what] = told(*events)
    assert what == "max_tokens_total is 100: 61 is allotted to b, and 61 is used"


def test_what_is_reserved_for_a_session_past_its_limit_is_found() -> None:
    with patch.object(book, "falls_to", lambda holder: holder):
        events = history(ledger(), [limit(session_id="a", max_tokens_total=60), allot("reserved:1:a", tokens=61)])
    [what] = told(*events)
    assert what.startswith("max_tokens_total is 60: ")


def test_what_a_ledger_took_from_another_reservation_than_that_it_was_recorded_in_is_found() -> None:
    used = RecordUsage(entry="e", kind="model_usage", at=NOON, heard=NOON, total_tokens=50, holder="reserved:1:")
    with patch.object(book, "_paid", lambda state, holder, spent: _PAID(state, "reserved:2:", spent)):
        events = history(
            ledger(),
            [
                limit(max_tokens_total=100),
                allot("reserved:1:", tokens=49),
                allot("reserved:2:", tokens=49),
                used,
                back("reserved:1:"),
                allot("reserved:3:", tokens=49),
            ],
        )
    assert told(*events) == ["max_tokens_total is 100: 49 is allotted to reserved:3:, and 99 is used"]


_PAID = book._paid


def test_a_session_that_keeps_more_than_it_held_is_found() -> None:
    [_, allotted] = history(ledger(), [limit(max_tokens_total=100), allot("a", tokens=60)])
    kept = AllotmentReturned(session_id="a", ask="w1", spent=NOTHING, kept=Amount(tokens=99), at=NOON)
    assert told(allotted, kept) == ["a keeps more than it held"]
    other = AllotmentReturned(session_id="a", ask="w9", spent=NOTHING, kept=NOTHING, at=NOON)
    assert told(allotted, other) == ["a gives back w9, and holds w1"]


def walk(*events: tuple[str, Event]) -> list[str]:
    """Streams, one event a batch, as `verify` sees them: position by position, each stream by itself."""
    changes, balances, found = Changes(), dict[str, Balance](), []
    for n, (stream, event) in enumerate(events, start=1):
        balance = balances.setdefault(stream, Balance(changes))
        found += balance.see(Recorded(n, stream, n, 0, 1, event, Head(id=f"b{n}", at=1, asked="x")))
    return [*found, *(what for _, _, what in changes.found())]


def reserved(call: str) -> tuple[str, Event]:
    return "session-a", BudgetReserved(call=call, tokens=1, cost=1, max_tokens=1)


ALLOTTED = history(ledger(), [limit(max_tokens_total=9000), allot("a", tokens=60, requests=1)])
BEGUN: list[tuple[str, Event]] = [
    *(("ledger-x", event) for event in ALLOTTED),
    ("session-a", AllotmentWanted(ask="w1", ledger="x", spent=NOTHING, want=NOTHING, least=NOTHING)),
    ("session-a", AllotmentTaken(ask="w1", grant=ALLOTTED[-1].grant)),  # type: ignore[attr-defined]
]
LOWERED: tuple[str, Event] = ("ledger-x", BudgetSet(budget=Budget(max_tokens_total=0), at=NOON))


def test_one_call_more_is_begun_before_a_session_has_heard_of_a_limit_and_no_second() -> None:
    assert walk(*BEGUN, reserved("m1"), reserved("m2"), LOWERED, reserved("m3"), reserved("m3")) == []
    [what] = walk(*BEGUN, reserved("m1"), LOWERED, reserved("m2"), reserved("m3"))
    assert what == "a went on with w1, which was called back when limits of x were changed"


def test_a_session_that_goes_on_with_what_it_let_go_of_is_found() -> None:
    back = ("session-a", AllotmentReleased(ask="w1", spent=NOTHING, kept=Amount(requests=1)))
    assert walk(*BEGUN, reserved("m1"), back, reserved("m1")) == []
    assert walk(*BEGUN, reserved("m1"), back, reserved("m2")) == ["m2 is called with money that was let go of"]
    asked = ("session-a", AllotmentWanted(ask="w2", ledger="x", spent=NOTHING, want=NOTHING, least=NOTHING))
    assert walk(*BEGUN, reserved("m1"), back, asked, reserved("m2")) == []


def configured(terms: Terms) -> tuple[str, Event]:
    return "session-a", AgentConfigured(definition=Definition(image_version=1, model="scripted:any", terms=terms))


def test_what_begins_after_its_day_with_what_was_allotted_for_it_is_found() -> None:
    taken: tuple[str, Event] = ("session-a", AllotmentTaken(ask="w1", grant=Grant(amount=Amount(1), until=1)))
    of_now = configured(Terms(ledger="x"))
    what = "m1 is called with what was allotted for a time that is over"
    assert walk(of_now, *BEGUN[:-1], taken, reserved("m1")) == [what]
    assert walk(of_now, *BEGUN, reserved("m1")) == []


def test_a_limit_that_warns_is_no_violation() -> None:
    soft = limit(max_tokens_total=10, exceed_strategy="warn")
    assert told(*history(ledger(), [soft, allot("a", tokens=60)])) == []


def test_a_model_that_is_called_under_a_budget_without_money_is_found() -> None:
    terms = Terms(ledger="default")
    configured = AgentConfigured(definition=Definition(image_version=1, model="scripted:any", terms=terms))
    called = ModelCalled(call="m1", attempt=1, upto=1, image_version=1, model="scripted:any", context="")
    reserved = BudgetReserved(call="m1", tokens=1, cost=1, max_tokens=1)
    assert told(configured, reserved, called) == []
    assert told(configured, called) == ["m1 is called under a budget, and nothing is set aside for it"]
    free = AgentConfigured(definition=Definition(image_version=1, model="scripted:any"))
    assert told(free, called) == []
