"""What an agent knows of money, once it is to know something else."""

from __future__ import annotations

from hypothesis import given as drawn
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.terms import dearest, merged, rate_of, renewed
from reenact.events.agent import AgentConfigured, ModelCalled, RecoverEffect
from reenact.events.budget import BudgetSpec, Price, Rate, Terms
from reenact.events.policy import ApplyPolicy, ConstraintPolicy, Policy
from reenact.events.purse import BudgetReserved
from tests.actors.purses import RATE, begun, run_of, says, the
from tests.actors.words import CREATE, DEFINITION, asks, send, settles, waking
from tests.given import Given, given

RATES = tuple(Rate(model, 3_000, 15_000) for model in ("scripted:echo", "scripted:hello"))
FEW = st.integers(0, 3)
RISES = replace(RATE, later=(Price(5_000_000, 2 * RATE.input, 2 * RATE.output),))
LATER = st.lists(st.builds(Price, since=FEW, input=FEW, output=FEW), max_size=3, unique_by=lambda price: price.since)
RATED = st.builds(
    Rate,
    model=st.just("scripted:echo"),
    input=FEW,
    output=FEW,
    later=LATER.map(lambda prices: tuple(sorted(prices, key=lambda price: price.since))),
)
DEAR = Policy(name="dear", version="1", rules=(ConstraintPolicy(max_cost_per_request=100),))
TERMS = st.none() | st.builds(
    Terms,
    spec=st.sampled_from([None, BudgetSpec(max_tokens=9), BudgetSpec(max_turns=2)]),
    ledger=st.sampled_from([None, "acme"]),
    rates=st.sampled_from([(), RATES[:1], RATES, tuple(replace(rate, input=4_000) for rate in RATES)])
    | st.tuples(RATED),
    overhead=st.integers(0, 2),
    degrade_to=st.sampled_from([None, "scripted:hello"]),
)


def set_aside(stream: Given) -> int:
    [reserved] = [event for event in stream.events if isinstance(event, BudgetReserved)]
    return reserved.tokens


@drawn(TERMS, TERMS)
def test_what_terms_became_they_become_again(terms: Terms | None, wanted: Terms | None) -> None:
    """Else a replay, which knows what they became and not what was wanted, would decide otherwise."""
    became = renewed(terms, wanted)
    assert renewed(terms, became) == became


@drawn(TERMS, TERMS)
def test_a_ledger_that_is_known_is_kept_and_every_price_that_is_wanted_is_there(
    terms: Terms | None, wanted: Terms | None
) -> None:
    became = renewed(terms, wanted)
    if terms is not None and terms.ledger is not None:
        assert became is not None and became.ledger is not None
    if wanted is not None:
        assert became is not None and became.spec == wanted.spec
        assert {rate.model for rate in wanted.rates} <= {rate.model for rate in became.rates}


@drawn(TERMS, TERMS)
def test_of_instructions_and_tools_the_most_is_kept_that_may_be_read_in_a_turn(
    terms: Terms | None, wanted: Terms | None
) -> None:
    became = renewed(terms, wanted)
    if wanted is not None:
        assert became is not None and became.overhead == max(wanted.overhead, 0 if terms is None else terms.overhead)


@drawn(RATED, RATED, st.integers(0, 4))
def test_of_two_prices_of_a_model_the_higher_one_holds_at_every_time(one: Rate, other: Rate, now: int) -> None:
    both, mine, its = dearest(one, other).on(now), one.on(now), other.on(now)
    assert (both.input, both.output) == (max(mine.input, its.input), max(mine.output, its.output))


@drawn(TERMS, TERMS, st.sampled_from([rate.model for rate in RATES]), st.integers(0, 4))
def test_no_price_that_is_known_is_undercut_whenever_it_was_told(
    terms: Terms | None, wanted: Terms | None, model: str, now: int
) -> None:
    if terms is None or wanted is None:
        return
    for both in (renewed(terms, wanted), merged(terms, wanted)):
        assert both is not None
        rate = rate_of(both, model, now)
        for known in (rate_of(terms, model, now), rate_of(wanted, model, now)):
            assert known is None or (rate is not None and rate.input >= known.input and rate.output >= known.output)


def later(stream: Given) -> Given:
    """The same after a price has risen."""
    stream.at = RISES.later[0].since
    return stream


def costs(stream: Given) -> int:
    """What the last call sets aside for each token that it may write, beside what it reads at that price."""
    held, rate = the(stream, BudgetReserved), RATE.on(0)
    once = rate.cost(held.tokens - held.max_tokens, held.max_tokens)
    assert held.cost % once == 0
    return int(held.cost // once)


def test_given_a_price_that_rises_while_a_job_waits_what_begins_then_is_set_aside_with_it() -> None:
    """A tool that takes days, and a message that was queued behind it: both began when the price was another."""
    terms = replace(run_of(max_cost="1"), rates=(RISES,))
    stream = begun(terms)
    assert costs(stream) == 1
    stream.when(asks("m1", "read")).when(send("job_2", "and now?", waking=None))
    assert costs(later(stream).when(settles("t1"))) == 2
    assert costs(stream.when(says("m2"))) == 2


def test_given_a_price_that_rises_what_a_new_process_begins_again_is_set_aside_with_the_highest() -> None:
    """No ledger is asked, and nothing says what day it is."""
    stream = begun(replace(run_of(max_cost="1"), rates=(RISES,)))
    assert costs(later(stream).after_a_crash().when(RecoverEffect(effect="m1", attempt=1))) == 2


def test_given_tools_that_come_in_the_middle_of_a_turn_the_next_call_is_set_aside_with_them() -> None:
    terms = Terms(spec=BudgetSpec(max_tokens=10**6), rates=RATES, overhead=10)
    definition = replace(DEFINITION, terms=terms)
    stream = given(CREATE, send(waking=waking(definition=definition)))
    before = set_aside(stream)
    stream.when(asks("m1", "read")).when(ApplyPolicy(policy=(), terms=replace(terms, overhead=5_000)))
    assert set_aside(stream.when(settles("t1"))) >= before + 4_990


def test_given_a_job_that_limits_something_else_the_words_of_its_image_stand() -> None:
    def both(image: BudgetSpec, job: BudgetSpec) -> Terms:
        terms = merged(Terms(spec=image), Terms(spec=job))
        assert terms is not None and terms.spec is not None
        return terms

    turns = BudgetSpec(max_turns=3)
    allowed = both(BudgetSpec(max_cost="1", unpriced="allow"), turns).spec
    assert allowed is not None and allowed.unpriced == "allow"
    refused = both(BudgetSpec(max_cost="1"), BudgetSpec(max_turns=3, unpriced="allow")).spec
    assert refused is not None and refused.unpriced == "deny", "whoever limits no money says nothing of it"

    asked = both(BudgetSpec(max_turns=2, on_breach="ask"), BudgetSpec(max_tokens=900))
    assert (asked.asks("max_turns"), asked.asks("max_tokens")) == (True, False)
    wider = both(BudgetSpec(max_turns=2), BudgetSpec(max_turns=1, max_cost="1", on_breach="ask"))
    assert (wider.asks("max_turns"), wider.asks("max_cost")) == (False, True), (
        "a job lets nobody raise its image's limit"
    )


def test_a_limit_on_what_a_call_may_cost_that_comes_in_the_middle_of_a_turn_comes_with_the_prices_to_keep_it() -> None:
    stream = given(CREATE, send(), asks("m1", "read"))
    stream.when(ApplyPolicy(policy=(DEAR,), terms=Terms(rates=RATES))).then(AgentConfigured)
    assert stream.when(settles("t1")).events[-1].type == ModelCalled.type
    stream.when(ApplyPolicy(policy=(DEAR,), terms=Terms(rates=RATES))).then_nothing()


def test_a_limit_of_time_that_comes_in_the_middle_of_a_run_counts_from_then_on() -> None:
    stream = given(CREATE, send(), asks("m1", "read"))
    stream.at += 5_000_000
    stream.when(ApplyPolicy(policy=(), terms=Terms(spec=BudgetSpec(max_runtime_seconds=60), rates=RATES)))
    assert [effect.at for effect in stream.owed if effect.id == "runtime-job_1"] == [stream.at + 60_000_000]


def test_terms_that_nothing_limits_any_more_are_forgotten_unless_there_is_something_to_settle() -> None:
    terms = Terms(spec=BudgetSpec(max_tokens=9), rates=RATES)
    assert renewed(terms, None) is None
    assert renewed(replace(terms, ledger="acme"), None) == replace(terms, ledger="acme", spec=None)
    assert DEFINITION.terms is None
