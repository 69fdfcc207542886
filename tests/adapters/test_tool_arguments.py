"""Which calls of a tool are let through, as values and as text, and what the others are told."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import math
from types import GenericAlias
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

from reenact.adapters.tools.arguments import BadArguments
from reenact.adapters.tools.tool import Tool, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Line:
    sku: str
    count: int = 1


class Address(TypedDict):
    city: str
    zip: NotRequired[str]


class Node(msgspec.Struct):
    value: int
    children: list[Node] = []


def reason(checked: dict[str, Any] | BadArguments) -> str:
    assert isinstance(checked, BadArguments), checked
    return f"{checked.path}: {checked.reason}"


# -- arguments as values --


@tool(effect="read")
def everything(
    text: str,
    number: int = 0,
    ratio: float = 0.0,
    flag: bool = False,
    names: list[str] = [],  # noqa: B006
    table: dict[str, int] = {},  # noqa: B006
    pair: tuple[int, str] = (0, ""),
    mode: Literal["fast", "slow", 3] = "fast",
    colour: Colour = Colour.RED,
    maybe: str | None = None,
    either: int | str | list[int] = 0,
    line: Line | None = None,
    address: Address | None = None,
    tree: Node | None = None,
    when: datetime.datetime | None = None,
    price: decimal.Decimal = decimal.Decimal("1.50"),
    blob: bytes = b"",
    small: Annotated[int, Meta(ge=0, lt=10)] = 0,
    anything: Any = None,
    *,
    tags: set[str] = frozenset(),  # type: ignore[assignment]
) -> str:
    return text


def test_arguments_arrive_as_the_types_that_were_declared() -> None:
    assert everything.validate(
        {
            "text": "é",
            "ratio": 3,
            "pair": [1, "a"],
            "mode": 3,
            "colour": "blue",
            "line": {"sku": "a"},
            "address": {"city": "Rome"},
            "tree": {"value": 1, "children": [{"value": 2}]},
            "when": "2026-01-02T03:04:05Z",
            "price": "2.50",
            "blob": "aGk=",
            "tags": ["a", "b"],
            "anything": {"x": [1, None]},
        }
    ) == {
        "text": "é",
        "ratio": 3.0,
        "pair": (1, "a"),
        "mode": 3,
        "colour": Colour.BLUE,
        "line": Line("a", 1),
        "address": {"city": "Rome"},
        "tree": Node(1, [Node(2)]),
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "price": decimal.Decimal("2.50"),
        "blob": b"hi",
        "tags": {"a", "b"},
        "anything": {"x": [1, None]},
    }


def test_what_was_not_sent_is_left_to_the_function() -> None:
    assert everything.validate({"text": ""}) == {"text": ""}
    assert everything.spec.parameters["required"] == ["text"]
    assert everything.spec.parameters["properties"]["price"]["default"] == "1.50"
    assert everything.spec.parameters["properties"]["colour"]["default"] == "red"
    assert "default" not in everything.spec.parameters["properties"]["line"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text": 3}, "$.text: Expected `str`, got `int` 3"),
        ({"text": "", "number": "3"}, '$.number: Expected `int`, got `str` "3"'),
        ({"text": "", "number": 3.5}, "$.number: Expected `int`, got `float` 3.5"),
        ({"text": "", "number": True}, "$.number: Expected `int`, got `bool` true"),
        ({"text": "", "flag": 1}, "$.flag: Expected `bool`, got `int` 1"),
        ({"text": "", "names": ["a", 1]}, "$.names[1]: Expected `str`, got `int` 1"),
        ({"text": "", "table": {"a": "x"}}, "$.table[...]: Expected `int`, got `str`"),
        ({"text": "", "pair": [1]}, "$.pair: Expected `array` of length 2"),
        ({"text": "", "mode": "medium"}, "$.mode: Invalid enum value 'medium'"),
        ({"text": "", "colour": "green"}, "$.colour: Invalid enum value 'green'"),
        ({"text": "", "line": {}}, "$.line: Object missing required field `sku`"),
        ({"text": "", "tree": {"value": 1, "children": [{}]}}, "$.tree.children[0]: Object missing"),
        ({"text": "", "when": "soon"}, '$.when: Invalid RFC3339 encoded datetime, got "soon"'),
        ({"text": "", "small": 10}, "$.small: Expected `int` <= 9, got 10"),
        ({"text": "", "maybe": 1}, "$.maybe: Expected `str | null`, got `int` 1"),
        ({}, '$: missing "text"'),
        ({"txt": "", "number": 1, "zz": 1}, '$: missing "text"; unknown "txt", "zz"'),
        ({"text": "a\0b"}, "$.text: U+0000"),
        ({"text": "a\ud800"}, "$.text: the lone surrogate U+D800"),
        ({"text": "", "anything": {"\udfff": 1}}, "$.anything: a key holds the lone surrogate U+DFFF"),
        ({"text": "", "anything": {"a b": [1, {"c": "\0"}]}}, '$.anything["a b"][1].c: U+0000'),
        ({"text": "", "ratio": math.nan}, "$.ratio: nan is no JSON number"),
        ({"text": "", "ratio": -math.inf}, "$.ratio: -inf is no JSON number"),
        ({"text": "", "number": 2**64}, "$.number: an integer beyond 64 bits"),
        ({"text": "", "number": -(2**63) - 1}, "$.number: an integer beyond 64 bits"),
        ({"text": "", "anything": {1: 2}}, "$.anything: a key is integer, not a string"),
        ({"text": "", "anything": datetime.date(2026, 1, 1)}, "$.anything: date is no JSON value"),
        ({"text": "x" * 10_000_000}, "$.text: text of more than 1048576 bytes"),
        ({"text": "", "names": ["x" * 600_000] * 2}, "$: they are larger than 1048576 bytes"),
        ([], "$: expected an object, got array"),
        (None, "$: expected an object, got null"),
        ("{}", "$: expected an object, got string"),
    ],
)
def test_a_bad_call_is_told_where_what_was_expected_and_what_came(arguments: Any, says: str) -> None:
    checked = everything.validate(arguments)
    assert says in reason(checked)
    assert isinstance(checked, BadArguments)
    assert checked.message.startswith("Bad arguments for everything: at $")
    assert "It takes text (required), number (optional)" in checked.message
    assert checked.message.endswith("Nothing was run.")
    assert len(checked.message) < 1500
    checked.message.encode()


def test_64_bits_are_enough_and_64_levels_are_too() -> None:
    for number in (2**64 - 1, -(2**63)):
        assert everything.validate({"text": "", "number": number}) == {"text": "", "number": number}
    nested: Any = 0
    for _ in range(63):
        nested = [nested]
    assert isinstance(everything.validate({"text": "", "anything": nested}), dict)
    assert reason(everything.validate({"text": "", "anything": [nested]})).endswith("nested deeper than 64 levels")
    endless: list[Any] = []
    endless.append(endless)
    assert reason(everything.validate({"text": "", "anything": endless})).endswith("nested deeper than 64 levels")


def test_a_long_wrong_value_does_not_fill_the_answer() -> None:
    checked = everything.validate({"text": "", "colour": "x" * 100_000})
    assert isinstance(checked, BadArguments) and len(checked.message) < 1500


def test_a_whole_number_with_a_fraction_of_zero_is_an_integer() -> None:
    assert repr(everything.validate({"text": "", "number": 3.0, "ratio": 2.0, "mode": 3.0})) == (
        "{'text': '', 'number': 3, 'ratio': 2.0, 'mode': 3}"
    )
    assert repr(everything.validate({"text": "", "ratio": 2.0, "anything": 2.0})) == (
        "{'text': '', 'ratio': 2.0, 'anything': 2.0}"
    )


def test_a_tool_that_changes_its_arguments_changes_nothing_recorded() -> None:
    # Fails where values are passed through as they came (`msgspec.convert` does so for Any).
    recorded = {"text": "", "anything": {"list": [1]}, "names": ["a"]}
    checked = everything.validate(recorded)
    assert isinstance(checked, dict)
    checked["anything"]["list"].append(2)
    checked["names"].append("b")
    assert recorded == {"text": "", "anything": {"list": [1]}, "names": ["a"]}


def test_a_type_whose_own_check_raises_makes_a_bad_call() -> None:
    @dataclasses.dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise KeyError("odd")

    @tool
    def act(x: Even) -> None: ...

    assert act.validate({"x": {"n": 2}}) == {"x": Even(2)}
    assert "odd" in reason(act.validate({"x": {"n": 1}}))


def test_the_size_of_arguments_is_the_tools_own_choice() -> None:
    @tool(max_arguments_bytes=20)
    def act(a: str) -> None: ...

    assert act.validate({"a": "é" * 6}) == {"a": "é" * 6}
    assert reason(act.validate({"a": "é" * 7})) == "$: they are larger than 20 bytes"


# -- the law: the schema accepts exactly what the check accepts --

PLAIN_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(-1e15, 1e15) | st.integers(-5, 5) | st.just(2.0)
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | PLAIN_TEXT,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(PLAIN_TEXT, below, max_size=2),
    max_leaves=4,
)
LEAVES = st.sampled_from(
    [
        str,
        int,
        float,
        bool,
        Any,
        None,
        Colour,
        Line,
        Address,
        Node,
        Literal["a", "b"],
        Literal[1, "a"],
        Literal[None, "x"],
        Annotated[int, Meta(ge=0, le=9)],
        Annotated[str, Meta(min_length=1, max_length=2)],
        int | float,
        int | str | None,
        bool | str,
        str | list[int] | dict[str, bool],
        float | bool | None,
    ]
)


def composed(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    # Sets are left out: `uniqueItems` is more than their check asks for. So are dicts with keys that are no strings.
    return st.one_of(
        below.map(lambda hint: GenericAlias(list, (hint,))),
        below.map(lambda hint: GenericAlias(dict, (str, hint))),
        below.map(lambda hint: GenericAlias(tuple, (hint, ...))),
        st.tuples(below, below).map(lambda pair: GenericAlias(tuple, pair)),
        below.map(lambda hint: Optional[hint]),  # noqa: UP045 - a value
    )


HINTS = st.recursive(LEAVES, composed, max_leaves=3)
ABSENT = object()


@st.composite
def calls(draw: st.DrawFn) -> tuple[Tool[..., Any], dict[str, Any]]:
    """A tool of any signature, and arguments for it that are right, nearly right, or wrong."""
    parameters = []
    for name in draw(st.lists(st.sampled_from(["a", "b", "c", "self", "copy"]), unique=True, max_size=3)):
        default = draw(st.sampled_from([inspect.Parameter.empty, ABSENT]))
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=draw(HINTS)))

    def generated(**arguments: Any) -> dict[str, Any]:
        return arguments

    generated.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    made = tool(generated)
    schema = made.spec.parameters
    arguments = {}
    for name, property_ in schema["properties"].items():
        if draw(st.integers(0, 9)):
            arguments[name] = draw(near(property_, schema.get("$defs", {})))
    if not draw(st.integers(0, 9)):
        arguments["extra"] = draw(JUNK)
    return made, arguments


def near(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit the schema, now and then with junk somewhere inside."""
    return st.integers(0, 11).flatmap(lambda roll: JUNK if roll == 0 else fitting(schema, defs))


def fitting(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return st.deferred(lambda: fitting(defs[schema["$ref"].removeprefix("#/$defs/")], defs))
    if "anyOf" in schema:
        return st.sampled_from(schema["anyOf"]).flatmap(lambda choice: fitting(choice, defs))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "string":
            return PLAIN_TEXT
        case "integer":
            return st.integers(-2, 12) | st.integers(-(2**63), 2**64 - 1) | st.integers(-2, 12).map(float)
        case "number":
            return NUMBERS
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            if "prefixItems" in schema:
                return st.tuples(*(near(each, defs) for each in schema["prefixItems"])).map(list)
            return st.lists(near(schema["items"], defs), max_size=2)
        case "object" if "properties" in schema:
            properties = {name: near(each, defs) for name, each in schema["properties"].items()}
            return st.fixed_dictionaries({}, optional=properties)
        case "object":
            return st.dictionaries(PLAIN_TEXT, near(schema.get("additionalProperties", {}), defs), max_size=2)
    assert set(schema) <= {"default", "description"}, schema
    return JUNK


def accepts(schema: Any, value: Any, defs: dict[str, Any]) -> bool:
    """JSON Schema 2020-12, as much of it as schemas of tools use; a keyword it does not know fails the test."""
    if isinstance(schema, bool):
        return schema
    known = {"title", "description", "default", "$defs", "required"}
    for keyword, operand in schema.items():
        if keyword in known:
            continue
        match keyword:
            case "$ref":
                fine = accepts(defs[operand.removeprefix("#/$defs/")], value, defs)
            case "type":
                fine = is_a(operand, value)
            case "enum":
                fine = any(same(each, value) for each in operand)
            case "anyOf":
                fine = any(accepts(each, value, defs) for each in operand)
            case "minimum":
                fine = not is_a("number", value) or value >= operand
            case "maximum":
                fine = not is_a("number", value) or value <= operand
            case "minLength":
                fine = not isinstance(value, str) or len(value) >= operand
            case "maxLength":
                fine = not isinstance(value, str) or len(value) <= operand
            case "minItems":
                fine = not isinstance(value, list) or len(value) >= operand
            case "maxItems":
                fine = not isinstance(value, list) or len(value) <= operand
            case "prefixItems":
                fine = not isinstance(value, list) or all(map(lambda s, v: accepts(s, v, defs), operand, value))
            case "items":
                rest = value[len(schema.get("prefixItems", ())) :] if isinstance(value, list) else []
                fine = all(accepts(operand, each, defs) for each in rest)
            case "properties":
                inner = value if isinstance(value, dict) else {}
                fine = all(accepts(operand[name], each, defs) for name, each in inner.items() if name in operand)
                fine = fine and (not isinstance(value, dict) or set(schema.get("required", ())) <= value.keys())
            case "additionalProperties":
                inner = value if isinstance(value, dict) else {}
                named = schema.get("properties", {})
                fine = all(accepts(operand, each, defs) for name, each in inner.items() if name not in named)
            case _:
                raise AssertionError(f"no meaning given for {keyword!r}")
        if not fine:
            return False
    return True


def is_a(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return {
        "integer": isinstance(value, int) or (isinstance(value, float) and value.is_integer()),
        "number": isinstance(value, int | float),
        "string": isinstance(value, str),
        "null": value is None,
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }.get(kind, False)


def same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls())
def test_the_schema_accepts_exactly_what_the_check_accepts(call: tuple[Tool[..., Any], dict[str, Any]]) -> None:
    made, arguments = call
    schema = made.spec.parameters
    checked = made.validate(arguments)
    # Fails when the check is made lax, when nothing forbids unknown arguments, and when 3.0 is refused for an integer.
    assert accepts(schema, arguments, schema.get("$defs", {})) == isinstance(checked, dict), checked
    if isinstance(checked, dict):
        assert checked.keys() == arguments.keys()
        assert made(**checked) == checked
