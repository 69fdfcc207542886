"""What stands in an event is changed by nobody who comes to hold it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events.action import ActionRequired, ActionResolved, RequireAction, ResolveAction
from reenact.events.content import Native, ToolCall
from reenact.events.frozen import FrozenDict, FrozenList, frozen, thawed
from reenact.events.image import ImageConfig
from reenact.events.policy import PolicyRef
from reenact.events.tool import Place

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)

DICT: list[Callable[[Any], object]] = [
    lambda it: it.__setitem__("a", 2),
    lambda it: it.__delitem__("a"),
    lambda it: it.update(a=2),
    lambda it: it.setdefault("b", 2),
    lambda it: it.pop("a"),
    lambda it: it.popitem(),
    lambda it: it.clear(),
    lambda it: it.__ior__({"a": 2}),
]
LIST: list[Callable[[Any], object]] = [
    lambda it: it.__setitem__(0, 2),
    lambda it: it.__delitem__(0),
    lambda it: it.append(2),
    lambda it: it.extend([2]),
    lambda it: it.insert(0, 2),
    lambda it: it.remove(1),
    lambda it: it.pop(),
    lambda it: it.clear(),
    lambda it: it.sort(),
    lambda it: it.reverse(),
    lambda it: it.__iadd__([2]),
    lambda it: it.__imul__(2),
]


@given(OBJECTS)
def test_it_reads_and_is_written_as_the_plain_one(value: dict[str, Any]) -> None:
    made = frozen(value)
    assert made == value and made is not value and repr(made) == repr(value)
    assert msgspec.json.encode(made) == msgspec.json.encode(value)
    assert msgspec.msgpack.encode(made) == msgspec.msgpack.encode(value)
    assert json.dumps(made) == json.dumps(value)
    assert msgspec.convert(made, dict[str, Any]) == value
    for plain in (thawed(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert plain == value and type(plain) is dict
    assert frozen(made) is made


@given(OBJECTS)
def test_nothing_in_it_is_plain_and_all_of_a_copy_is(value: dict[str, Any]) -> None:
    def kinds(of: Any) -> set[type]:
        inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else ()
        below = set[type]().union(*map(kinds, inner))
        return below | ({type(of)} if isinstance(of, dict | list) else set())

    assert kinds(frozen(value)) <= {FrozenDict, FrozenList}
    for plain in (thawed(frozen(value)), copy.deepcopy(frozen(value))):
        assert kinds(plain) <= {dict, list}


@pytest.mark.parametrize("change", DICT)
def test_no_dict_in_it_can_be_changed(change: Callable[[Any], object]) -> None:
    made = frozen({"a": 1, "in": [{"a": 1}]})
    for each in (made, made["in"][0]):
        with pytest.raises(TypeError, match="does not change"):
            change(each)
    assert made == {"a": 1, "in": [{"a": 1}]}


@pytest.mark.parametrize("change", LIST)
def test_no_list_in_it_can_be_changed(change: Callable[[Any], object]) -> None:
    made = frozen({"a": [1, 3, [1, 3]]})
    for each in (made["a"], made["a"][2]):
        with pytest.raises(TypeError, match="does not change"):
            change(each)
    assert made == {"a": [1, 3, [1, 3]]}


def test_the_deepest_that_can_be_read_is_frozen_too() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert type(frozen(deep)["a"]["a"]) is FrozenDict


HOLDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a call": lambda it: ToolCall(id="c", name="n", input=it).input,
    "a block": lambda it: Native(provider="p", block=it).block,
    "a question": lambda it: ActionRequired(action="a1", kind="custom", timeout_ms=1, payload=it).payload,
    "its metadata": lambda it: ActionRequired(action="a1", kind="custom", timeout_ms=1, metadata=it).metadata,
    "a question that is put": lambda it: RequireAction(kind="custom", timeout_ms=1, payload=it).payload,
    "an answer": lambda it: ActionResolved(action="a1", resolution=it, at=1, by="x").resolution,
    "an answer that is given": lambda it: ResolveAction(action="a1", resolution=it, at=1, by="x").resolution,
    "a place": lambda it: Place(env=it).env,
    "a definition": lambda it: ImageConfig(metadata=it).metadata,
    "what narrows a policy": lambda it: PolicyRef(name="x", overrides=it).overrides,
}


@pytest.mark.parametrize("held", HOLDERS.values(), ids=HOLDERS)
def test_what_holds_one_keeps_a_copy_that_nobody_changes(held: Callable[[dict[str, Any]], Any]) -> None:
    given = {"a": "1"}
    kept = held(given)
    given["a"] = "2"
    assert kept == {"a": "1"}
    with pytest.raises(TypeError, match="does not change"):
        kept["a"] = "2"
