"""What an agent knows of money, once it is to know something else."""

from __future__ import annotations

from hypothesis import given as drawn
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.terms import merged, renewed
from reenact.events.agent import AgentConfigured, ModelCalled
from reenact.events.budget import BudgetSpec, Rate, Terms
from reenact.events.policy import ApplyPolicy, ConstraintPolicy, Policy
from reenact.events.purse import BudgetReserved
from tests.actors.words import CREATE, DEFINITION, asks, send, settles, waking
from tests.given import Given, given

RATES = tuple(Rate(model, 3_000, 15_000) for model in ("scripted:echo", "scripted:hello"))
DEAR = Policy(name="dear", version="1", rules=(ConstraintPolicy(max_cost_per_request=100),))
TERMS = st.none() | st.builds(
    Terms,
    spec=st.sampled_from([None, BudgetSpec(max_tokens=9), BudgetSpec(max_turns=2)]),
    ledger=st.sampled_from([None, "acme"]),
    rates=st.sampled_from([(), RATES[:1], RATES, tuple(replace(rate, input=4_000) for rate in RATES)]),
    overhead=st.integers(0, 2),
    degrade_to=st.sampled_from([None, "scripted:hello"]),
    rules=st.integers(0, 1),
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
    if wanted is not None and wanted.rules:
        assert became is not None and became.overhead == max(wanted.overhead, 0 if terms is None else terms.overhead)


def test_given_tools_that_come_in_the_middle_of_a_turn_the_next_call_is_set_aside_with_them() -> None:
    terms = Terms(spec=BudgetSpec(max_tokens=10**6), rates=RATES, overhead=10, rules=1)
    definition = replace(DEFINITION, terms=terms)
    stream = given(CREATE, send(waking=waking(definition=definition)))
    before = set_aside(stream)
    stream.when(asks("m1", "read")).when(ApplyPolicy(policy=(), terms=replace(terms, overhead=5_000)))
    assert set_aside(stream.when(settles("t1"))) >= before + 4_990


def test_given_a_job_that_limits_something_else_the_words_of_its_image_stand() -> None:
    def both(image: BudgetSpec, job: BudgetSpec) -> Terms:
        terms = merged(Terms(spec=image, rules=1), Terms(spec=job, rules=1))
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
