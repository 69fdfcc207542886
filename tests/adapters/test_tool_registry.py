"""Tools by name, the looks of a set of them, and tools loaded from a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.adapters.tools.errors import DuplicateTool, ToolDefinitionError, ToolFileError, UnknownTool
from reenact.adapters.tools.registry import Tools, digest_of, load_file
from reenact.adapters.tools.tool import tool
from reenact.events.errors import NotFound, ReenactError, Refused


@tool(effect="read")
def look(place: str) -> str:
    """Look somewhere."""
    return place


@tool(effect="idempotent", approval="ask", timeout_s=5)
def refund(order: str, cents: int = 0) -> str:
    """Refund an order."""
    return order


# -- a set of tools --


def test_tools_are_found_by_name_and_listed_in_order() -> None:
    tools = Tools([refund, look])
    assert tools["look"] is look
    assert list(tools) == ["look", "refund"] and len(tools) == 2
    assert tools.specs() == (look.spec, refund.spec)
    assert "look" in tools and "other" not in tools
    assert tools.get("other") is None
    assert repr(tools) == "Tools(look, refund)"


def test_the_same_tool_twice_is_one() -> None:
    again = tool(look.function, effect="read")
    tools = Tools([look, look, again])
    assert dict(tools) == {"look": look}


def test_two_different_tools_of_one_name_are_refused() -> None:
    tools = Tools([look])
    with pytest.raises(
        DuplicateTool, match=r"two different tools named 'look' \(sha256:\w+ and sha256:\w+\)"
    ) as caught:
        tools.add(tool(refund.function, name="look"))
    assert isinstance(caught.value, Refused)
    assert tools["look"] is look


def test_what_is_no_tool_is_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="is no tool"):
        Tools([lambda: None])  # type: ignore[list-item]


def test_a_probeable_tool_is_taken_only_with_its_probe() -> None:
    @tool(effect="probeable", probe=...)
    def charge(order: str) -> str:
        return order

    with pytest.raises(ToolDefinitionError, match="'charge' is probeable and its probe was never attached"):
        Tools([charge])
    charge.probe(lambda key: None)
    assert Tools([charge])["charge"] is charge


def test_an_unknown_name_says_which_there_are() -> None:
    tools = Tools([look, refund])
    for ask in (lambda: tools["lock"], lambda: tools.only(["look", "lock"])):
        with pytest.raises(UnknownTool) as caught:
            ask()
        assert isinstance(caught.value, KeyError) and isinstance(caught.value, NotFound)
        assert str(caught.value) == "There is no tool named 'lock'. Did you mean look? There are: look, refund."
    with pytest.raises(UnknownTool, match="there are none"):
        Tools()["x"]


def test_some_of_them_are_a_set_too() -> None:
    assert dict(Tools([look, refund]).only(["refund"])) == {"refund": refund}


@given(st.permutations(["a", "b", "c"]), st.permutations(["a", "b", "c"]))
def test_the_digest_of_a_set_does_not_depend_on_order(one: list[str], other: list[str]) -> None:
    def made(names: list[str]) -> Tools:
        return Tools(tool(look.function, name=name) for name in names)

    assert made(one).digest == made(other).digest == digest_of(reversed(made(one).specs()))


def test_the_digest_of_a_set_changes_with_any_of_its_tools() -> None:
    changed = tool(look.function, approval="ask")
    sets = [Tools(), Tools([look]), Tools([changed]), Tools([refund]), Tools([look, refund]), Tools([changed, refund])]
    assert len({each.digest for each in sets}) == len(sets)


# -- looking at a call before it is decided on --


def test_a_good_call_is_checked_with_its_tools_facts_and_no_digest_of_what_is_not_masked_yet() -> None:
    check = Tools([refund]).check("refund", {"order": "A", "cents": 3})
    assert (check.name, check.effect, check.approval, check.timeout_s) == ("refund", "idempotent", "ask", 5.0)
    assert check.version == refund.version
    assert check.problem is None
    assert check.arguments == ""


def test_a_bad_call_is_checked_with_the_words_for_the_model() -> None:
    tools = Tools([refund])
    wrong = tools.check("refund", {"order": 3})
    assert wrong.problem is not None and "$.order: Expected `str`, got `int` 3" in wrong.problem
    assert wrong.effect == "idempotent" and wrong.arguments == ""
    unread = tools.check("refund", {}, invalid="{'order': [10 bytes, not JSON]")
    assert unread.problem is not None and unread.problem.startswith("The arguments cannot be read: {'order': [10 bytes")
    assert unread.problem.endswith("Nothing was run.") and unread.arguments == ""
    unknown = tools.check("refunds", {})
    assert unknown.problem == (
        "There is no tool named 'refunds'. Did you mean refund? There are: refund. Nothing was run."
    )
    assert unknown.effect == "unsafe"


@pytest.mark.parametrize("name", ["", "x" * 100_000, "a\0b", "\ud800", "日本"])
def test_a_strange_name_is_an_unknown_one_and_its_answer_can_be_stored(name: str) -> None:
    problem = Tools([look]).check(name, {}).problem
    assert problem is not None and len(problem.encode()) < 500 and "\0" not in problem


# -- tools from a file --

FILE = '''
from __future__ import annotations
import dataclasses
import msgspec
from reenact.adapters.tools.tool import tool

@dataclasses.dataclass
class Line:
    sku: str
    next: Line | None = None

@tool(effect="read")
def stock(line: Line) -> int:
    """How many are left."""
    return len(line.sku)

order = alias = tool(lambda_ := (lambda: None), name="order")
_private = tool(lambda_, name="private")
helper = 3
'''


def written(folder: Path, text: str, name: str = "shop.py") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_gives_every_tool_at_its_top_level(tmp_path: Path) -> None:
    path_before, file = list(sys.path), written(tmp_path, FILE, "my shop-2.py")
    tools = load_file(file)
    assert list(tools) == ["order", "private", "stock"]
    checked = tools["stock"].validate({"line": {"sku": "ab", "next": {"sku": "c"}}})
    assert isinstance(checked, dict) and tools["stock"](**checked) == 2
    assert sys.path == path_before
    assert [each.name for each in tmp_path.iterdir()] == ["my shop-2.py"]
    assert load_file(str(file)).digest == tools.digest


def test_files_of_one_name_do_not_disturb_each_other_or_the_program(tmp_path: Path) -> None:
    loaded = []
    for folder, answer in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        text = f"from reenact.adapters.tools.tool import tool\n@tool\ndef f() -> int:\n    return {answer}\n"
        loaded.append(load_file(written(tmp_path / folder, text, "json.py"))["f"])
    assert [each() for each in loaded] == [1, 2]
    assert not hasattr(sys.modules["json"], "f")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n\ndef f(:\n    pass\n", "shop.py:3: invalid syntax"),
        ("def f():\nreturn 1\n", "shop.py:2: expected an indented block"),
        ("x = 1\n", "shop.py: no tools in it. Put @tool on a function"),
        ("", "shop.py: no tools in it"),
        ("x = 1\nimport surely_not_there\n", "shop.py:2: ModuleNotFoundError: No module named 'surely_not_there'"),
        ("def f():\n    return 1 / 0\n\nf()\n", "shop.py:2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "shop.py:1: SystemExit: 3"),
        (
            "from reenact.adapters.tools.tool import tool\n@tool\ndef f(*a): ...\n",
            r"shop.py:2: Tool 'f': \*a cannot be described",
        ),
        ("x = '\0'\n", "shop.py.*null bytes"),
        ("# coding: no-such-codec\n", "shop.py.*no-such-codec"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_where_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    before = set(sys.modules)
    with pytest.raises(ToolFileError, match=says) as caught:
        load_file(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ReenactError)
    assert not [name for name in set(sys.modules) - before if name.startswith("_reenact_tools_")]


def test_a_file_that_is_not_there_or_is_a_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ToolFileError, match=r"nowhere.py: No such file or directory"):
        load_file(tmp_path / "nowhere.py")
    with pytest.raises(ToolFileError, match="Is a directory"):
        load_file(tmp_path)


def test_two_tools_of_one_name_in_a_file_are_refused(tmp_path: Path) -> None:
    text = (
        "from reenact.adapters.tools.tool import tool\n"
        "a = tool(lambda: None, name='f')\n"
        "b = tool(lambda: None, name='f', effect='read')\n"
    )
    with pytest.raises(DuplicateTool, match="named 'f'"):
        load_file(written(tmp_path, text))


def test_a_file_loaded_anew_is_read_anew(tmp_path: Path) -> None:
    text = "from reenact.adapters.tools.tool import tool\n@tool\ndef f() -> int:\n    return 1\n"
    assert load_file(written(tmp_path, text))["f"]() == 1
    again: Any = load_file(written(tmp_path, text.replace("return 1", "return 2")))["f"]
    assert again() == 2
