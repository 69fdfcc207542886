"""Names in order: what a tuple of them says, for less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.actors.container import CONTAINER
from reenact.actors.roster import Roster
from reenact.events.container import AddImage, ImageAdded
from reenact.events.message import Stamp

NAMES = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(st.booleans(), NAMES), max_size=60))
def test_it_is_a_tuple_of_names_each_once(steps: list[tuple[bool, str]]) -> None:
    roster, names = Roster(), tuple[str, ...]()
    for adds, name in steps:
        before, held = roster, tuple(roster)
        if adds:
            roster, names = roster.plus(name), names if name in names else (*names, name)
        else:
            roster, names = roster.without(name), tuple(each for each in names if each != name)
        assert tuple(before) == held, "what it was made from is as it was"
        assert tuple(roster) == names and len(roster) == len(names)
        assert [name in roster for name in "abcdefgh"] == [name in names for name in "abcdefgh"]
    whole = Roster()
    for name in names:
        whole = whole.plus(name)
    assert roster == whole and roster != Roster().plus("z")


def copied(count: int) -> int:
    """How many names are copied while so many images are added to one container."""
    (decider,), copies = CONTAINER.deciders, 0
    state = decider.initial
    for number in range(count):
        command = AddImage(container_id="acme", image_id=f"img_{number}", created_at=1)
        for event in decider.decide(state, command):
            before = {id(part) for part in state.images._parts}
            state = decider.evolve(state, event, Stamp(1, 1, 1, b""))
            if isinstance(event, ImageAdded):
                copies += sum(len(part) for part in state.images._parts if id(part) not in before)
    assert len(state.images) == count
    return copies


def test_an_image_costs_its_container_no_more_when_it_has_many() -> None:
    few, many = copied(500) / 500, copied(8_000) / 8_000
    assert many < few + 5, f"{few:.1f} names are copied for each of 500, {many:.1f} for each of 8,000"


def test_one_that_is_copied_whole_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Roster, "plus", lambda roster, name: Roster((dict.fromkeys((*roster, name)),)))
    assert copied(2_000) / 2_000 > copied(500) / 500 + 500
