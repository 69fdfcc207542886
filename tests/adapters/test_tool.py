"""Declaring a tool: what a model is told of it, and what cannot be one."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import math
import subprocess
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, assert_type

import msgspec
import pytest
from msgspec import Meta

from reenact.adapters.tools.arguments import BadArguments
from reenact.adapters.tools.tool import Tool, ToolContext, ToolDefinitionError, tool
from reenact.events.errors import ReenactError


@dataclasses.dataclass
class Line:
    sku: str
    count: int = 1


class Node(msgspec.Struct):
    value: int
    children: list[Node] = []


CONTEXT = ToolContext(idempotency_key="key-1", session_id="sess_1", call_id="t1")


def reason(checked: dict[str, Any] | BadArguments) -> str:
    assert isinstance(checked, BadArguments), checked
    return f"{checked.path}: {checked.reason}"


# -- the function --


def test_a_tool_is_still_the_function_it_was() -> None:
    @tool(effect="read")
    def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    assert add(1) == 3
    assert add(1, b=1) == 2
    assert_type(add(1, 2), int)
    assert add.__name__ == "add" and add.__doc__ == "Add."
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert repr(add) == "<tool add (read)>"


def test_an_async_tool_is_still_the_coroutine_function_it_was() -> None:
    @tool
    async def fetch(url: str) -> bytes:
        return url.encode()

    coroutine: Coroutine[Any, Any, bytes] = fetch("x")
    assert asyncio.run(coroutine) == b"x"


def test_a_bound_method_can_be_a_tool() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        def greet(self, who: str) -> str:
            """Greet."""
            return f"{self.name} greets {who}"

    greet = tool(Shop("A").greet, name="shop_greet")
    assert greet(who="me") == "A greets me"
    assert greet.spec.name == "shop_greet" and list(greet.spec.parameters["properties"]) == ["who"]


# -- what a model is told --


def test_the_spec_says_what_hints_docstring_and_options_say() -> None:
    @tool(effect="idempotent", approval="ask", timeout_s=30)
    def refund(order: str, cents: int = 0) -> str:
        """Refund an order.

        The money goes back
        the way it came.

        Args:
            order: the order's number,
                as printed
            cents: how much, 0 for all of it

        Returns:
            a receipt
        """
        return order

    spec = refund.spec
    assert spec.name == "refund"
    assert spec.description == "Refund an order.\n\nThe money goes back\nthe way it came."
    assert (spec.effect, spec.approval, spec.timeout_s, spec.source) == ("idempotent", "ask", 30.0, "code")
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "order": {"type": "string", "description": "the order's number, as printed"},
            "cents": {"type": "integer", "description": "how much, 0 for all of it", "default": 0},
        },
        "required": ["order"],
        "additionalProperties": False,
    }


def test_a_bare_tool_is_unsafe_and_needs_no_approval() -> None:
    @tool
    def act() -> None: ...

    assert (act.spec.effect, act.spec.approval) == ("unsafe", "never")
    assert act.spec.description == ""
    assert act.spec.parameters == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


@pytest.mark.parametrize(
    "docstring",
    [
        "Do.\n\nArgs:\n    order (str): the number\n",
        "Do.\n\nParameters\n----------\norder : str\n    the number\n",
        "Do.\n\n:param order: the number\n:returns: nothing\n",
        "Do.\n\n@param order: the number\n",
    ],
    ids=["google", "numpy", "rest", "epydoc"],
)
def test_every_common_docstring_style_describes_parameters(docstring: str) -> None:
    def act(order: str) -> None: ...

    act.__doc__ = docstring
    spec = tool(act).spec
    assert spec.description == "Do."
    assert spec.parameters["properties"]["order"]["description"] == "the number"


def test_what_a_hint_says_of_itself_comes_before_the_docstring() -> None:
    @tool
    def act(
        a: Annotated[str, "from the hint"],
        b: Annotated[int, Meta(description="from the meta", ge=1)],
        c: Annotated[str, Meta(max_length=3)],
        d: Annotated[list[str], "kept beside None"] = None,  # type: ignore[assignment]  # noqa: RUF013
    ) -> None:
        """Do.

        Args:
            a: from the docstring
            b: from the docstring
            c: from the docstring
        """

    properties = act.spec.parameters["properties"]
    assert properties["a"]["description"] == "from the hint"
    assert properties["b"] == {"type": "integer", "minimum": 1, "description": "from the meta"}
    assert properties["c"] == {"type": "string", "maxLength": 3, "description": "from the docstring"}
    assert properties["d"]["description"] == "kept beside None"


def test_a_strange_docstring_is_taken_as_it_is() -> None:
    def act() -> None: ...

    act.__doc__ = "Args:\n  broken"
    assert tool(act).spec.description == "Args:\nbroken"


def test_the_root_of_the_schema_is_no_reference_even_beside_a_type_of_the_same_name() -> None:
    class _Arguments(msgspec.Struct):
        n: int

    @tool
    def act(inner: _Arguments, lines: list[Line], tree: Node) -> str:
        return repr(inner)

    schema = act.spec.parameters
    assert schema["type"] == "object" and "$ref" not in schema and "title" not in schema
    assert len(schema["$defs"]) == 3
    assert "n" in str(act.validate({"inner": {"n": 1}, "lines": [], "tree": {"value": 1}}))
    assert reason(act.validate({"inner": {"n": "1"}, "lines": [], "tree": {"value": 1}})).startswith("$.inner.n: ")


def test_the_context_is_handed_over_and_not_shown() -> None:
    @tool
    def plain(order: str, context: ToolContext) -> str:
        return context.idempotency_key

    @tool
    def optional(order: str, context: ToolContext | None = None) -> str:
        return "" if context is None else context.idempotency_key

    for each in (plain, optional):
        assert list(each.spec.parameters["properties"]) == ["order"]
        assert each.parameters.context == "context"
        assert "context" in reason(each.validate({"order": "1", "context": {}}))
    assert plain.spec.parameters == optional.spec.parameters


def test_a_type_that_is_local_to_the_declaring_function_is_found() -> None:
    class Local(msgspec.Struct):
        n: int

    @tool
    def bare(x: Local) -> int:
        return x.n

    @tool(effect="read")
    def optioned(x: list[Local]) -> int:
        return len(x)

    def captured(x: Local) -> Local:
        return Local(n=1)

    for each in (bare, tool(captured)):
        assert each.validate({"x": {"n": 3}}) == {"x": Local(n=3)}
    assert optioned.validate({"x": [{"n": 3}]}) == {"x": [Local(n=3)]}


def _declared_elsewhere() -> Any:
    def act(x: elsewhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    return act


def test_a_local_name_of_another_function_is_not_taken_for_the_type() -> None:
    elsewhere = int  # in the caller's scope, not where `act` was declared
    with pytest.raises(ToolDefinitionError, match="the type 'elsewhere' of 'x' cannot be resolved"):
        tool(_declared_elsewhere())
    assert elsewhere is int


def test_the_version_is_a_digest_over_all_that_a_call_depends_on() -> None:
    def act(a: str, b: int = 0) -> None:
        """Do."""

    def wider(a: str, b: int = 0, c: bool = False) -> None:
        """Do."""

    base = tool(act)
    assert base.version == tool(act).version == base.spec.version
    assert base.version.startswith("sha256:")
    others: list[Tool[..., Any]] = [
        tool(act, name="other"),
        tool(act, description="Do it."),
        tool(act, effect="read"),
        tool(act, approval="ask"),
        tool(act, timeout_s=1),
        tool(wider, name="act"),
    ]
    assert len({base.version, *(each.version for each in others)}) == 7
    assert tool(act, source="mcp:shop").version == base.version


def test_docstring_parser_is_loaded_only_for_docstrings_that_need_it() -> None:
    program = (
        "import sys; from reenact.adapters.tools.tool import tool\n"
        "def act(a: str) -> None: 'Do.'\n"
        "tool(act); print('docstring_parser' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- what cannot be a tool --


def _star(*names: str) -> None: ...
def _stars(**options: str) -> None: ...
def _positional(order: str, /) -> None: ...
def _untyped(order) -> None: ...  # type: ignore[no-untyped-def]
def _foreign(thing: threading.Lock) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _custom(thing: Tool[..., Any]) -> None: ...
def _generator(a: str) -> Any:
    yield a


def _accented(größe: int) -> None: ...
def _two(a: ToolContext, b: ToolContext) -> None: ...
def _mixed(a: list[int] | tuple[int, int]) -> None: ...


class _Class:
    def method(self, a: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_star, r"'_star': \*names cannot be described"),
        (_stars, r"'_stars': \*\*options cannot be described"),
        (_positional, r"'_positional': 'order' is positional-only"),
        (_untyped, r"'_untyped': parameter 'order' has no type"),
        (_foreign, r"'_foreign': the type 'threading.Lock' of 'thing' cannot be resolved"),
        (_custom, r"'_custom': the type of 'thing' has no form in JSON"),
        (_generator, r"'_generator' yields"),
        (_accented, r"'_accented': parameter 'größe' needs a name of ASCII letters"),
        (_two, r"'_two' has two parameters for its context: 'a', 'b'"),
        (_mixed, r"'_mixed': the type of 'a' has no form in JSON: .*array-like"),
        (_Class.method, r"'method' is a method"),
        (lambda: None, r"'<lambda>': a name is"),
        (len, r"must be a function"),
        (functools.partial(_Class), r"must be a function"),
        (_Class, r"must be a function"),
        (tool(_Class().method), r"'method' is a tool already"),
    ],
)
def test_what_a_model_cannot_call_is_refused_by_name(function: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says) as caught:
        tool(function)
    assert isinstance(caught.value, ToolDefinitionError) and isinstance(caught.value, ReenactError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "no spaces"}, "a name is"),
        ({"name": "x" * 65}, "a name is"),
        ({"name": ""}, "a name is"),
        ({"name": "line\n"}, "a name is"),
        ({"effect": "harmless"}, "effect 'harmless' is none of read, idempotent, probeable, unsafe"),
        ({"approval": True}, "approval True is none of never, ask"),
        ({"timeout_s": 0}, "timeout_s 0 "),
        ({"timeout_s": math.inf}, "timeout_s inf "),
        ({"timeout_s": "5"}, "timeout_s '5' "),
        ({"max_output_bytes": 10}, "max_output_bytes 10 .* at least 128"),
        ({"description": "a\0b"}, r"U\+0000 at .description"),
        ({"description": "a\ud800b"}, r"surrogate U\+D800 at .description"),
        ({"effect": "probeable"}, "'act' is probeable and has no probe"),
        ({"probe": lambda key: True}, "'act' is unsafe: only a probeable tool"),
        ({"probe": ...}, "'act' is unsafe: only a probeable tool"),
        ({"effect": "probeable", "probe": lambda other: True}, "asks for 'other'; it can have .*a, b.*`key`"),
        ({"effect": "probeable", "probe": lambda *a: True}, r"The probe of tool 'act': \*a cannot"),
        ({"effect": "probeable", "probe": 3}, "its probe must be a function"),
    ],
)
def test_wrong_options_are_refused_at_the_decoration(options: dict[str, Any], says: str) -> None:
    def act(a: str, b: int = 0) -> None: ...

    with pytest.raises(ToolDefinitionError, match=says):
        tool(**options)(act)


def test_a_probe_may_be_attached_below_and_only_once() -> None:
    @tool(effect="probeable", probe=...)
    def charge(order: str, cents: int = 7) -> str:
        return order

    with pytest.raises(ToolDefinitionError, match=r"'charge' is probeable and its probe was never attached"):
        charge.check()

    @charge.probe
    def charged(key: str, cents: int, context: ToolContext, order: str = "?") -> bool:
        return True

    charge.check()
    assert charge.probe_arguments({"order": "1"}, CONTEXT) == {
        "key": "key-1",
        "cents": 7,
        "context": CONTEXT,
        "order": "1",
    }
    with pytest.raises(ToolDefinitionError, match="has a probe already"):
        charge.probe(charged)
