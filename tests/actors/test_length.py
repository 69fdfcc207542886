"""How long a conversation is: it is estimated high, until its model has counted."""

from __future__ import annotations

from msgspec.structs import replace

from reenact.actors.length import tokens_in, tokens_of
from reenact.events.budget import Rate, Terms
from reenact.events.content import File, Image, Text
from reenact.events.policy import ApplyPolicy
from reenact.events.purse import AllotmentWanted, BudgetReserved
from reenact.events.session import Overrides
from tests.actors.approvals import check, resolve, start
from tests.actors.purses import LEDGER, RATE, begun, run_of, says, take, the, under, wants
from tests.actors.words import CREATE, send, settles
from tests.given import Given, given


def test_an_estimate_is_more_rather_than_less() -> None:
    assert tokens_of("") == 0
    assert tokens_of("a" * 400) == 120
    assert tokens_of("語" * 100) == 150
    assert tokens_of("\ud800") == 2
    assert tokens_in((Image(url="x"), File(url="x"), Text(text="abcd"))) == 2_400 + 24_000 + 6


def test_after_an_answer_only_what_is_new_is_estimated() -> None:
    first = the(begun(replace(LEDGER, overhead=5000)), AllotmentWanted)
    assert first.least.tokens > 5000
    stream = given(CREATE, under(replace(LEDGER, overhead=5000)), take(), wants("m1", "read", read=40, written=10))
    stream.when(settles("t1", output="y" * 100))
    assert the(stream, BudgetReserved).tokens == 50 + 8 + 30 + 100


def again(terms: Terms, model: str = "scripted:echo") -> Given:
    """A session under a ledger whose first answer, of 1,000 tokens, was counted; then a message under other terms."""
    first = replace(LEDGER, overhead=500)
    stream = given(CREATE, under(first), take(), wants("m1", read=900, written=100))
    later = replace(under(terms), job_id="job_2", overrides=Overrides(model=model))
    return stream.when(later)


PNG = "iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAIAAADwf7zU"
"""The head of a picture of 1,024 by 1,024 pixels."""


def test_pictures_are_set_aside_as_the_model_counts_them_that_sees_them() -> None:
    """Also those that another model counted."""
    one, two = 25_501, 48_169
    stream = given(CREATE, under(LEDGER), take(tokens=500_000), wants("m1", "look", read=40, written=10))
    stream.when(settles("t1", output=(Image(data=PNG), Image(url="https://example.com/cat.png"))))
    assert the(stream, BudgetReserved).tokens == 50 + 8 + one + two + 100
    stream.when(says("m2", read=900, written=100))
    stream.when(replace(under(LEDGER), job_id="job_2", overrides=Overrides(model="openai:gpt-4o-mini")))
    assert the(stream, BudgetReserved).tokens == 1_500 + one + two + 6 + 100


def test_given_instructions_that_grew_since_what_was_counted_their_growth_is_set_aside() -> None:
    assert the(again(replace(LEDGER, overhead=5000)), BudgetReserved).tokens == 1000 + 4500 + 6 + 100
    assert the(again(replace(LEDGER, overhead=20)), BudgetReserved).tokens == 1000 + 6 + 100


def test_what_another_model_counted_is_taken_for_half_as_much_again() -> None:
    terms = replace(LEDGER, overhead=500, rates=(RATE, Rate("scripted:hello", 1, 1)))
    assert the(again(terms, "scripted:hello"), BudgetReserved).tokens == 1500 + 6 + 100


def test_what_another_model_counted_before_anything_was_limited_is_taken_so_too() -> None:
    stream = given(CREATE, replace(send(), content=(Text(text="hello"), Image(data=PNG))))
    stream.when(wants("m1", read=900, written=100))
    limited = under(replace(LEDGER, overhead=500), job="job_2")
    stream.when(replace(limited, overrides=Overrides(model="openai:gpt-4o-mini")))
    assert the(stream, AllotmentWanted).least.tokens == 1500 + 25_501 + 500 + 6 + 64


def test_what_a_person_changed_in_a_call_is_set_aside_with_its_result() -> None:
    """The model is told of it."""
    stream = given(CREATE, under(LEDGER), take(), wants("m1", check(), read=40, written=10))
    stream.when(resolve(arguments={"text": "y" * 100})).when(start("t1"))
    stream.when(settles("t1", output="z" * 100))
    assert the(stream, BudgetReserved).tokens == 50 + 32 + 34 + 8 + 30 + 100


def test_given_an_answer_that_nothing_was_set_aside_for_the_instructions_of_now_are_set_aside_after_it() -> None:
    later = replace(under(replace(run_of(max_tokens=10**6), overhead=500)), job_id="job_2")
    unlimited = given(CREATE, under(None), wants("m1", read=900, written=100))
    assert the(unlimited.when(later), BudgetReserved).tokens == 1000 + 500 + 6 + 100
    limited = ApplyPolicy(policy=(), terms=LEDGER)  # while the call is under way
    stream = given(CREATE, under(None), limited, wants("m1", read=900, written=100))
    grown = replace(under(replace(LEDGER, overhead=500)), job_id="job_2")
    assert the(stream.when(grown).when(take()), BudgetReserved).tokens == 1000 + 500 + 6 + 100
