"""The name of a stream says whose it is, where nobody but its own scope has any business in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events.budget import Budget
from reenact.events.container import CreateContainer
from reenact.events.errors import NotFound
from reenact.events.ledger import SetBudget
from reenact.events.message import Command
from reenact.identity.pane import DEFAULT, container_stream, scope_in
from reenact.runtime import Runtime
from tests.runtimes import run

NAMES = st.just(DEFAULT) | st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@given(NAMES, NAMES)
def test_the_scope_in_the_name_of_a_stream_is_the_one_it_was_named_for(scope: str, name: str) -> None:
    assert scope_in(container_stream(scope, name)) == scope
    assert scope_in(f"ledger-{scope}") == scope_in(f"cooldown-{scope}") == scope
    assert scope_in(f"session-{name}") is scope_in(f"image-{name}") is None


CREATE = CreateContainer(container_id="default", created_at=0)
LIMIT = SetBudget(budget=Budget(scope_id="evil", max_cost_total="5"), at=1)
FIRST: dict[str, Command] = {"container-victim\x1fdefault": CREATE, "ledger-victim": LIMIT}


@pytest.mark.parametrize("stream", FIRST)
@pytest.mark.parametrize("beside", [False, True])
def test_nobody_makes_the_streams_of_another_scope_before_that_one_does(stream: str, beside: bool) -> None:
    async def work(opened: Runtime) -> None:
        evil, victim = opened.scoped(scope="evil"), opened.scoped(scope="victim")
        for view in (opened, evil):
            other = container_stream(view.scope, "other")
            asked: Any = (other, CREATE, ((stream, FIRST[stream]),)) if beside else (stream, FIRST[stream], ())
            with pytest.raises(NotFound):
                await view._access.ask(*asked[:2], companions=asked[2])
        assert opened.log.streams("") == []
        assert (await (await victim.image("bot")).send("hi")).status == "succeeded"
        assert (await victim.set_budget("5")).scope_id == "victim"

    run(work)
