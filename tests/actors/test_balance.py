"""What `verify` says of money, from events alone: what a broken ledger did is found, and nothing in a sound one."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from hypothesis import given as for_all
from hypothesis import strategies as st

from reenact.actors import ledger as rules
from reenact.actors.balance import Balance
from reenact.events.agent import AgentConfigured, ModelCalled
from reenact.events.budget import NOTHING, Amount, Terms
from reenact.events.ledger import AllotmentReturned, RecordUsage
from reenact.events.message import Event, Head, Recorded
from reenact.events.purse import BudgetReserved
from reenact.events.session import Definition
from tests.actors.test_ledger import DAY_US, NOON, allot, back, ledger, limit
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
    names = st.sampled_from(["a", "b", "c"])
    spent: dict[str, Amount] = {}
    asks: dict[str, int] = {}
    commands: list[Any] = [limit(max_tokens_daily=60, max_requests_per_minute=4, max_cost_monthly="0.00000005")]
    commands.append(limit(principal_id="ann", max_tokens_total=90))
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
                usage = RecordUsage(entry="e", kind="model_usage", at=at, principal_id="ann", total_tokens=7)
                commands.append(usage)
    assert told(*history(ledger(), commands)) == []


def test_what_a_ledger_that_only_checks_allotted_is_found() -> None:
    with patch.object(rules, "used", lambda sums, limit, now: (getattr(sums.total, limit.of), 0)):
        events = history(ledger(), [limit(max_tokens_total=100), allot("a", tokens=60), allot("b", tokens=60)])
    [what] = told(*events)
    assert what == "max_tokens_total is 100: 61 is allotted to b, and 61 is used"


def test_a_session_that_keeps_more_than_it_held_is_found() -> None:
    [_, allotted] = history(ledger(), [limit(max_tokens_total=100), allot("a", tokens=60)])
    kept = AllotmentReturned(session_id="a", ask="w1", spent=NOTHING, kept=Amount(tokens=99), at=NOON)
    assert told(allotted, kept) == ["a keeps more than it held"]
    other = AllotmentReturned(session_id="a", ask="w9", spent=NOTHING, kept=NOTHING, at=NOON)
    assert told(allotted, other) == ["a gives back w9, and holds w1"]


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
