"""Payloads: JSON underneath, attributes on top, read-only."""

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events.content import Usage
from reenact.events.errors import BadInput
from reenact.events.payload import Payload

DATA = {"record": {"imageId": "i", "tags": [{"shortName": "a"}]}, "__subscriptions": ["s"], "items": 3}


def test_a_field_has_three_spellings_at_every_depth() -> None:
    data = Payload(DATA)

    assert data["record"]["imageId"] == data.record.imageId == data.record.image_id == "i"
    assert data.record.tags[0].short_name == "a"
    assert getattr(data, "__subscriptions") == ["s"]  # inside a class the name would be mangled
    assert data["items"] == 3, "a key that is a method of dict is read with brackets"


def test_it_is_the_plain_dict_to_everybody_else() -> None:
    data = Payload(DATA)

    assert data == DATA
    assert json.loads(json.dumps(data)) == msgspec.json.decode(msgspec.json.encode(data)) == DATA
    assert msgspec.to_builtins(data) == DATA
    match data:
        case {"record": {"imageId": image_id}}:
            assert image_id == "i"
        case _:
            pytest.fail("it is a mapping")


def test_an_absent_field_says_what_there_is_and_an_absent_error_is_none() -> None:
    data = Payload(imageId="i")

    with pytest.raises(AttributeError, match=r"no field 'agent_id'; there are: imageId"):
        _ = data.agent_id
    assert data.error is None and Payload(error="no").error == "no"
    assert not hasattr(data, "nothing") and "imageId" in dir(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.__setitem__("a", 1),
        lambda data: data.__delitem__("record"),
        lambda data: data.update(a=1),
        lambda data: data.setdefault("a", 1),
        lambda data: data.pop("record"),
        lambda data: data.popitem(),
        lambda data: data.clear(),
        lambda data: data.__ior__({"a": 1}),
        lambda data: setattr(data, "a", 1),
        lambda data: delattr(data, "record"),
        lambda data: data.record.update(a=1),
    ],
)
def test_it_cannot_be_changed(change: Any) -> None:
    data = Payload(DATA)
    with pytest.raises(TypeError, match="read-only"):
        change(data)
    assert data == DATA


def test_what_it_was_built_from_may_change_without_it() -> None:
    source: dict[str, Any] = {"record": {"n": 1}, "list": [1]}
    data = Payload(source)

    source["record"]["n"] = 2
    source["list"].append(2)

    assert data == {"record": {"n": 1}, "list": [1]}


def test_it_can_be_copied_and_pickled() -> None:
    data = Payload(DATA)

    assert pickle.loads(pickle.dumps(data)) == copy.deepcopy(data) == copy.copy(data) == data
    assert isinstance(copy.deepcopy(data).record, Payload)
    changed = data.copy() | {"items": 4}
    assert type(changed) is dict and changed["items"] == 4


def test_structs_are_written_in_wire_names() -> None:
    assert Payload({"usage": Usage(input_tokens=1)}).usage["inputTokens"] == 1
    assert Payload(Usage(input_tokens=1)).input_tokens == 1


@pytest.mark.parametrize("value", [object(), [1], "text", 7, {"a": object()}, {"a": 1 + 2j}, {("a", "b"): 1}])
def test_what_has_no_json_form_is_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        Payload(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values))
def test_any_json_object_comes_out_as_it_went_in(value: dict[str, Any]) -> None:
    data = Payload(value)

    assert data == value and json.loads(json.dumps(data)) == value
    for key, item in value.items():
        assert data[key] == item
