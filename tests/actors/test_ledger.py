"""A ledger: what it allots, to whom, what it denies, and the law that no interleaving gets past."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from hypothesis import example
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.book import State, used
from reenact.actors.judge import judge
from reenact.actors.ledger import decide, evolve
from reenact.events.budget import LIMITS, NOTHING, Amount, Breach, Budget
from reenact.events.ledger import Allot, AllotmentDenied, AllotmentReturned, Allotted, BudgetSet, SetBudget
from reenact.events.message import Stamp
from tests.actors.ledgers import DAY_US, NOON, allot, back, denied, granted, ledger, limit

# -- what is allotted --


def test_without_a_limit_a_session_is_allotted_many_times_what_it_wants() -> None:
    assert granted(ledger().when(allot(tokens=100, requests=1))).amount == Amount(6400, 0, 64, 0)


def test_near_a_limit_it_is_allotted_what_it_wants_and_no_more() -> None:
    stream = ledger(limit(max_tokens_total=1000)).when(allot(tokens=900))
    assert granted(stream).amount.tokens == 900


def test_what_is_used_and_wanted_together_may_be_the_limit_itself() -> None:
    stream = ledger(limit(max_tokens_total=1000)).when(allot(tokens=1000))
    assert granted(stream).amount.tokens == 1000
    assert denied(stream.when(allot("other", tokens=1))) == Breach(
        limit="max_tokens_total", of="scope", used=1000, wanted=1, most=1000
    )


def test_it_takes_less_than_it_wants_where_that_is_enough() -> None:
    want, least = Amount(tokens=800), Amount(tokens=100)
    ask = Allot(session_id="t", principal_id="ann", ask="w1", spent=NOTHING, want=want, least=least, at=NOON)
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=800)).when(ask)
    assert granted(stream).amount.tokens == 200


def test_the_same_ask_has_one_answer() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    stream.when(allot(tokens=900)).then_nothing()
    stream.when(allot("t", tokens=900)).then(AllotmentDenied)
    stream.when(allot("t", tokens=900)).then_nothing()


def test_an_ask_that_comes_after_a_later_one_is_passed_over() -> None:
    ledger(allot(ask="w7", tokens=1)).when(allot(ask="w6", tokens=1)).then_nothing()


def test_asking_again_gives_back_what_was_held_and_settles_what_was_spent() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    assert granted(stream.when(allot(ask="w2", tokens=900, spent=Amount(tokens=100)))).amount.tokens == 900
    assert denied(stream.when(allot(ask="w3", tokens=800, spent=Amount(tokens=300)))).used == 300


def test_what_a_session_gives_back_others_may_have() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    stream.when(allot("t", tokens=500)).then(AllotmentDenied)
    stream.when(back(spent=Amount(tokens=300), kept=Amount(tokens=100))).then(AllotmentReturned)
    stream.when(allot("t", "w2", tokens=600)).then(Allotted)


def test_nothing_is_denied_before_others_were_asked_for_what_they_hold() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    stream.when(allot("t", tokens=500, last=False)).then_nothing()
    stream.when(allot("t", tokens=1001, last=False)).then(AllotmentDenied)  # nobody could give back that much


def test_the_last_word_is_said_in_the_state_in_which_nobody_had_anything_to_give_back() -> None:
    stream = ledger(limit(max_tokens_total=1000), allot(tokens=900))
    seen = stream.version
    stream.when(allot("t", tokens=500, seen=seen)).then(AllotmentDenied)
    stream.when(allot("t", "w2", tokens=500, seen=seen)).then_nothing()


def test_what_comes_back_of_an_earlier_allotment_or_too_late_is_passed_over() -> None:
    stream = ledger(allot(tokens=100), allot(ask="w2", tokens=100, spent=Amount(tokens=50)))
    stream.when(back(ask="w1", spent=Amount(tokens=60))).then_nothing()
    stream.when(back(ask="w2", spent=Amount(tokens=40))).then_nothing()
    stream.when(back("nobody")).then_nothing()


def test_no_session_gets_more_by_giving_back() -> None:
    stream = ledger(limit(max_tokens_total=100), allot(tokens=100))
    stream.when(back(spent=Amount(tokens=1), kept=Amount(tokens=10**6)))
    [account] = stream.states[0].accounts.values()
    assert account.held.tokens == 100


# -- whose limit --


def test_a_limit_of_a_scope_counts_everybody_in_it() -> None:
    stream = ledger(limit(max_tokens_total=100), allot("a", tokens=60, principal="ann"))
    stream.when(allot("b", tokens=60, principal="bob")).then(AllotmentDenied)


def test_a_limit_of_a_principal_counts_that_one_alone() -> None:
    stream = ledger(limit(principal_id="ann", max_tokens_total=100), allot("a", tokens=60, principal="ann"))
    assert denied(stream.when(allot("b", tokens=60, principal="ann"))).of == "principal"
    assert granted(stream.when(allot("c", tokens=60, principal="bob"))).amount.tokens == 3840


def test_a_limit_of_a_session_counts_that_one_alone() -> None:
    stream = ledger(limit(session_id="a", max_tokens_total=100), allot("a", tokens=60))
    assert denied(stream.when(allot("a", "w2", tokens=60, spent=Amount(tokens=60)))).of == "session"
    stream.when(allot("b", tokens=600)).then(Allotted)


def test_names_with_colons_are_not_mixed_up() -> None:
    stream = ledger(
        limit(principal_id="a:b", max_tokens_total=10),
        limit(session_id="a:b", max_tokens_total=1000),
        allot("x", tokens=9),
    )
    stream.when(allot("a:b", tokens=500, principal="a")).then(Allotted)
    stream.when(allot("b", tokens=500, principal="a:")).then(Allotted)
    assert denied(stream.when(allot("z", tokens=11, principal="a:b"))).of == "principal"


def test_a_message_of_another_principal_is_not_paid_by_the_first() -> None:
    stream = ledger(
        limit(principal_id="ann", max_tokens_total=100),
        allot("s", tokens=60, principal="ann"),
        allot("s", "w2", tokens=60, principal="bob", spent=Amount(tokens=10)),
    )
    assert stream.states[0].sums[("principal", "ann")].total.tokens == 10
    assert stream.states[0].sums[("principal", "bob")].out.tokens == 60 * 64


# -- the worst of what the limits say --


def test_a_warning_of_one_limit_does_not_hide_the_denial_of_another() -> None:
    stream = ledger(
        limit(max_tokens_total=100, warning_threshold=0.1, exceed_strategy="warn"),
        limit(principal_id="ann", max_cost_total="0.00000001"),
    )
    assert denied(stream.when(allot(tokens=500, cost=11))).limit == "max_cost_total"


def test_degrading_is_worse_than_warning_and_both_let_it_go_on() -> None:
    stream = ledger(
        limit(max_tokens_total=100, exceed_strategy="warn"),
        limit(session_id="s", max_tokens_total=50, exceed_strategy="degrade", degrade_to="scripted:hello"),
    )
    grant = granted(stream.when(allot(tokens=500)))
    assert (grant.degrade, grant.degrade_to) == (True, "scripted:hello")
    assert grant.warned == ("max_tokens_total of the scope", "max_tokens_total of the session")
    assert grant.amount.tokens == 500, "and nothing on top"


def test_from_its_threshold_on_a_limit_is_warned_of() -> None:
    stream = ledger(limit(max_tokens_total=1000, warning_threshold=0.8))
    assert granted(stream.when(allot(tokens=800))).warned == ()
    assert granted(stream.when(allot("t", tokens=1))).warned == ("max_tokens_total of the scope",)


def test_given_tools_that_are_asked_for_ahead_only_those_that_are_used_are_warned_of() -> None:
    stream = ledger(limit(max_tool_calls_daily=7, warning_threshold=0.8))
    ahead = replace(allot(requests=1, tools=8), least=Amount(requests=1))
    grant = granted(stream.when(ahead))
    told = "max_tool_calls_daily of the scope"
    assert (grant.warned, grant.amount.tools, grant.ahead) == ((), 7, ((told, 5),))
    grant = granted(stream.when(replace(allot(ask="w2", tools=9, spent=Amount(tools=5)), least=Amount(tools=1))))
    assert (grant.warned, grant.ahead) == ((told,), ())


def test_given_calls_of_tools_that_ask_again_and_again_what_is_allotted_does_not_grow() -> None:
    stream, left = ledger(limit(max_tool_calls_daily=10**6)), Amount(tokens=500, cost=10**6, requests=5)
    for number in range(1, 30):
        asks = allot(ask=f"w{number}", tokens=left.tokens, cost=left.cost, requests=left.requests, tools=9)
        left = granted(stream.when(replace(asks, least=Amount(tools=1)))).amount
    assert (left.tokens, left.cost, left.requests) == (500, 10**6, 5)


def test_a_threshold_near_nothing_is_not_nothing() -> None:
    stream = ledger(limit(max_tokens_total=100_000_000, warning_threshold=0.00004))
    assert granted(stream.when(allot(tokens=4_000))).warned == ()


def test_given_limits_of_every_call_a_session_is_told_whose_the_lowest_is() -> None:
    stream = ledger(
        limit(max_tokens_per_request=500, max_cost_per_request="1", max_tool_calls_per_request=3),
        limit(session_id="s", max_tokens_per_request=400),
        limit(principal_id="ann", max_tokens_per_request=450, max_tool_calls_per_request=2),
    )
    assert dict(granted(stream.when(allot())).whose) == {"tokens": "session", "tools": "principal"}


def test_a_model_without_a_price_is_refused_where_money_is_limited() -> None:
    stream = ledger(limit(max_cost_daily=1))
    breach = denied(stream.when(allot(tokens=1, priced=False)))
    assert (breach.code, breach.limit) == ("unpriced", "max_cost_daily")
    stream.when(limit(max_cost_daily=1, unpriced="allow")).then(BudgetSet)
    stream.when(allot(ask="w2", tokens=1, priced=False)).then(Allotted)
    ledger(limit(max_tokens_daily=10)).when(allot(tokens=1, priced=False)).then(Allotted)


# -- the law --


def _spend(sessions: dict[str, Any], name: str, part: float) -> Amount:
    """A session spends a part of what it may."""
    mine = sessions[name]
    may = mine["ceiling"] - mine["spent"]
    now = Amount(*(int(getattr(may, of) * part) for of in Amount.__struct_fields__))
    mine["spent"] = mine["spent"] + now
    return now


@for_all(data=st.data())
def test_what_is_settled_and_set_aside_never_passes_a_limit(data: st.DataObject) -> None:
    """Sessions that keep to their allotments, asking, spending and giving back in any order, over days."""
    most = {limit.name: data.draw(st.none() | st.integers(1, 200), label=limit.name) for limit in LIMITS}
    fields: dict[str, Any] = {name: value for name, value in most.items() if value is not None}
    fields = {name: Decimal(value) / 10**9 if "cost" in name else value for name, value in fields.items()}
    fields.setdefault("max_tokens_total", 100)
    budgets = [Budget(**fields), Budget(principal_id="p0", max_tokens_daily=50, max_requests_daily=5)]
    stream = ledger(*(SetBudget(budget=budget, at=NOON) for budget in budgets))
    sessions: dict[str, Any] = {
        f"s{n}": {"spent": NOTHING, "ceiling": NOTHING, "asks": 0, "ask": "", "principal": f"p{n % 2}"}
        for n in range(4)
    }
    at, truth = NOON, NOTHING
    for _ in range(data.draw(st.integers(1, 25))):
        name = data.draw(st.sampled_from(sorted(sessions)))
        mine = sessions[name]
        at += data.draw(st.sampled_from([0, 1_000_000, 30_000_000, 61_000_000, DAY_US, -DAY_US]))
        match data.draw(st.sampled_from(["ask", "ask", "spend", "back"])):
            case "ask":
                mine["asks"] += 1
                mine["ask"], mine["ceiling"] = f"w{mine['asks']}", mine["spent"]
                want = Amount(*(data.draw(st.integers(0, 60)) for _ in range(4)))
                stream.when(
                    allot(
                        name,
                        mine["ask"],
                        tokens=want.tokens,
                        cost=want.cost,
                        requests=want.requests,
                        tools=want.tools,
                        spent=mine["spent"],
                        principal=mine["principal"],
                        at=at,
                    )
                )
                assert stream.error is None
                if isinstance(stream.events[0], Allotted):
                    mine["ceiling"] = mine["spent"] + stream.events[0].grant.amount
            case "spend":
                truth += _spend(sessions, name, data.draw(st.floats(0, 1)))
            case "back":
                if data.draw(st.booleans()):
                    mine["ceiling"] = mine["spent"]
                stream.when(back(name, mine["ask"], spent=mine["spent"], kept=mine["ceiling"] - mine["spent"], at=at))
        holds(stream.states[0])
    for name, mine in sessions.items():
        stream.when(back(name, mine["ask"], spent=mine["spent"], at=at))
    assert stream.states[0].sums.get(("scope", ""), None) is None or stream.states[0].sums[("scope", "")].total == truth
    assert stream.states[0].overrun == NOTHING


def holds(state: State) -> None:
    """What is settled and set aside of every limit that denies is at most the limit, but for what calls overran."""
    for standing in state.budgets:
        sums = state.sums.get(standing.key)
        if sums is None or standing.budget.exceed_strategy != "deny":
            continue
        for one, most in standing.limits:
            settled, out = used(sums, one, state.now)
            assert settled + out <= most + getattr(state.overrun, one.of), (one.name, settled, out, most)


def test_what_a_call_cost_beyond_what_was_set_aside_is_settled_and_named() -> None:
    stream = ledger(limit(max_tokens_total=100), allot(tokens=90), back(spent=Amount(tokens=120)))
    assert stream.states[0].overrun.tokens == 30
    holds(stream.states[0])
    assert denied(stream.when(allot("t", tokens=1))).used == 120


def test_a_look_changes_nothing() -> None:
    stream = ledger(limit(max_tokens_total=100), allot(tokens=90))
    before = stream.states
    judged = judge(stream.states[0], "ann", "t", Amount(tokens=20), Amount(tokens=20))
    assert judged.breach is not None and judged.breach.used == 90
    assert stream.states == before


def test_what_a_ledger_does_for_one_session_takes_no_longer_when_it_has_many() -> None:
    """With 10,000 sessions, where every account copied would take ten times as long as with a hundred."""

    def fastest(sessions: int) -> float:
        state, took = State(), []
        for event in decide(state, limit(max_cost_daily="1000000")):
            state = evolve(state, event, Stamp(1, NOON, 1, b""))
        for number in range(sessions + 100):
            began = time.perf_counter()
            for event in decide(state, allot(f"s{number}", tokens=10, cost=10, requests=1)):
                state = evolve(state, event, Stamp(number + 2, NOON, 1, b""))
            took.append(time.perf_counter() - began)
        assert len(state.accounts) == sessions + 100
        return min(took[sessions:])

    assert fastest(10_000) < 5 * fastest(100)


@for_all(
    st.lists(st.integers(0, 2_500) | st.integers(0, 150_000), min_size=2, max_size=40), st.integers(59_000, 61_000)
)
@example([100, 900], 59_500)
@example([500, 1_500, 900], 59_200)
def test_a_minute_counts_all_of_it_and_at_most_a_second_more(told_ms: list[int], later_ms: int) -> None:
    """Of requests told in any order: as many entries as it has seconds, however many requests."""
    stream = ledger(limit(max_requests_per_minute=10**6))
    now, spent, heard = NOON, NOTHING, []
    for number, ms in enumerate(told_ms):
        made = NOON + ms * 1000
        now, spent = max(now, made), spent + Amount(requests=1)
        stream.when(allot("s", f"w{number}", requests=1, spent=spent, at=now, made=made))
        heard.append(made)
    state, now = stream.states[0], now + later_ms * 1000
    [counts] = [one for one in LIMITS if one.name == "max_requests_per_minute"]
    sums = state.sums.get(("scope", ""))
    settled = 0 if sums is None else used(sums, counts, now)[0]
    minute = [sum(made > now - within * 1_000_000 for made in heard) for within in (60, 61)]
    assert minute[0] <= settled <= minute[1]
    assert sums is None or len(sums.recent) <= 61
