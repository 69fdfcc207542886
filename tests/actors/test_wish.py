"""What a call may write, as it is wanted."""

from __future__ import annotations

from msgspec.structs import replace

from reenact.events.model import ModelParams
from reenact.events.purse import AllotmentWanted, BudgetReserved
from reenact.events.session import Overrides
from tests.actors.purses import LEDGER, take, the, under
from tests.actors.words import CREATE
from tests.given import given


def test_a_limit_of_tokens_that_a_provider_does_not_take_is_set_aside_as_what_is_asked_for() -> None:
    for model, written in (("openai:gpt-4o", 16), ("scripted:echo", 1)):
        message = replace(under(LEDGER, max_tokens=1), overrides=Overrides(model=model))
        stream = given(CREATE, message).when(take())
        assert the(stream, BudgetReserved).max_tokens == written, model


def test_who_thinks_first_is_given_room_to_think() -> None:
    thinking = replace(under(LEDGER), overrides=Overrides(params=ModelParams(thinking="high", max_tokens=9000)))
    wanted = the(given(CREATE).when(thinking), AllotmentWanted)
    assert wanted.want.tokens - wanted.least.tokens == 9000 - 2048
