"""Questions of every kind, asked by a tool, answered at the command line, and heard by the tool that asked."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reenact.adapters.cli.app import main
from reenact.adapters.cli.output import Output
from reenact.adapters.cli.person import Person, Said
from reenact.cli.commands import Commands
from tests.adapters.cli.processes import owning
from tests.adapters.cli.terminal import Ended, Stream, at_terminal, one_line, reenact

TOOLS = '''
import json
import re
from reenact import ActionSpec, ToolContext, tool


@tool(effect="idempotent")
async def ask(kind: str, payload: str, context: ToolContext) -> str:
    """Ask a person."""
    action = await context.actions.require_action(ActionSpec(type=kind, payload=json.loads(payload)))
    action = await context.actions.wait_for_resolution(action.action_id)
    return json.dumps(action.resolution)


@tool(effect="idempotent", approval="ask")
def refund(order: str) -> str:
    """Refund an order."""
    return f"refunded {order}"
'''


@pytest.fixture(autouse=True)
def here(here: Path) -> Path:
    (here / "tools.py").write_text(TOOLS)
    return here


def asks(kind: str, payload: dict[str, Any]) -> Ended:
    """A run whose tool asks a person, and which ends waiting."""
    script(kind, payload)
    ended = reenact("run", "ask", "-m", "scripted:script.json", "--tools", "tools.py")
    assert ended.code == 1
    return ended


def heard() -> Any:
    """What the tool was answered, once the job went on in another process."""
    assert reenact("resume").code == 0
    assert "identical" in reenact("replay", "last").out
    for row in map(json.loads, reenact("events", "--session", "last", "--json").out.splitlines()):
        if row["type"] == "tool_settled":
            return json.loads(row["data"]["output"])
    raise AssertionError("no tool ended")


CHANGES = {"changes": ["one", "two", "three"]}

KINDS = [
    ("confirm", {}, ["--yes"], {"approved": True}),
    ("confirm", {}, ["--no", "--comment", "not now"], {"approved": False, "comment": "not now"}),
    ("approval", {}, ["--yes"], {"approved": True}),
    ("choose", {"options": ["red", "blue"]}, ["--choose", "blue"], {"choice": "blue"}),
    (
        "choose",
        {"options": ["a", "b", "c"], "multiple": True},
        ["--choose", "c", "--choose", "a"],
        {"choices": ["c", "a"]},
    ),
    ("input", {"max_length": 9}, ["--text", "any words"], {"text": "any words"}),
    ("input", {}, ["--text", ""], {"text": ""}),
    ("reauth", {}, ["--yes"], {"authenticated": True}),
    ("reauth", {"secret": "shop"}, ["--no"], {"authenticated": False}),
    ("apply_changes", CHANGES, ["--yes"], {"approved": True}),
    ("apply_changes", CHANGES, ["--change", "0", "--change", "2"], {"approved": True, "changes": [0, 2]}),
    ("custom", {"any": "thing"}, ["--resolution", '{"colour": ["red"]}'], {"colour": ["red"]}),
    ("input", {}, ["--resolution", '{"text": "whole"}'], {"text": "whole"}),
]


@pytest.mark.parametrize(("kind", "payload", "options", "resolution"), KINDS)
def test_every_kind_is_answered_and_the_tool_hears_it_in_another_process(
    kind: str, payload: dict[str, Any], options: list[str], resolution: dict[str, Any]
) -> None:
    asks(kind, payload)
    answered = reenact("approvals", "answer", "a1", *options, "--json")
    assert answered.code == 0 and answered.row["resolution"] == resolution and answered.row["status"] == "resolved"
    shown = re.search(r"^Action .*: \w+, (.+?) 20\d\d-", reenact("approvals", "show", "a1").out)
    assert shown and f"  {shown[1]}  " in reenact("approvals", "--all").out, "one word for it wherever it is shown"
    assert heard() == resolution


def test_an_upload_goes_into_the_log_and_to_the_tool(here: Path) -> None:
    (here / "bill.pdf").write_bytes(b"%PDF \x00\xff")
    (here / "note.txt").write_text("hello")
    asks("upload", {"message": "The bill, please.", "max_files": 2})
    answered = reenact("approvals", "answer", "a1", "--file", "bill.pdf", "--file", str(here / "note.txt"))
    assert answered.code == 0
    files = heard()["files"]
    assert [(each["name"], each["mediaType"], each["bytes"]) for each in files] == [
        ("bill.pdf", "application/pdf", 7),
        ("note.txt", "text/plain", 5),
    ]
    assert files[0]["data"] == "JVBERiAA/w=="
    shown = reenact("approvals", "show", "a1").out
    assert "bill.pdf" in shown and "JVBERi" not in shown and "answered" in shown


def test_a_question_that_asks_for_a_secret_is_not_answered_by_saying_yes() -> None:
    asks("reauth", {"secret": "shop"})
    for options, said in [
        (["--yes"], "--secret, or --no; not with --yes"),
        (["--resolution", '{"authenticated": true}'], "none of that name was handed over"),
        (["--resolution", '{"authenticated": true, "secret": "shop"}'], "none of that name was handed over"),
    ]:
        refused = reenact("approvals", "answer", "a1", *options)
        assert refused.code in (1, 2) and said in one_line(refused), options
    assert reenact("approvals", "--json").row["status"] == "pending"


def test_text_may_come_from_a_pipe() -> None:
    asks("input", {})
    assert reenact("approvals", "answer", "a1", "--text", "-", stdin="of\nseveral lines").code == 0
    assert heard() == {"text": "of\nseveral lines"}


def test_the_wrong_kind_of_answer_is_refused_with_what_is_possible_and_the_question_stays(here: Path) -> None:
    asks("choose", {"options": ["red", "blue"]})
    for options, said in [
        (["--text", "red"], '--choose KEY, of "red", "blue"; not with --text'),
        (["--yes"], "not with --yes"),
        ([], "nothing was said"),
        (["--choose", "green"], "'green' is not among the options: red, blue"),
        (["--choose", "red", "--choose", "blue"], "not several"),
        (["--resolution", '{"choice": 3}'], "one of the options"),
        (["--resolution", "[1]"], "is an object"),
        (["--resolution", "{}", "--yes"], "no place beside it"),
    ]:
        refused = reenact("approvals", "answer", "a1", *options)
        assert refused.code == 2 and said in one_line(refused), options
    for command in ("approve", "deny"):
        refused = reenact("approvals", command, "a1")
        assert refused.code == 2 and "approvals answer a1 --choose KEY" in one_line(refused)
    assert "no call to" in one_line(reenact("approvals", "approve", "a1"))
    assert reenact("approvals", "edit", "a1").code == 2
    assert reenact("approvals", "--json").row["status"] == "pending"


@pytest.mark.parametrize(
    ("kind", "payload", "options", "said"),
    [
        ("confirm", {}, ["--choose", "a"], "--yes or --no"),
        ("input", {"min_length": 3, "max_length": 5}, ["--text", "ab"], "3 to 5 characters"),
        ("upload", {}, ["--file", "nowhere"], "nowhere: there is no such file"),
        ("upload", {}, ["--file", "~nobody-of-this-name/x"], "has a home directory here"),
        ("upload", {}, ["--file", "large"], "at most 8,388,608 bytes"),
        ("upload", {"max_files": 1}, ["--file", "s", "--file", "s"], "a list of 1 to 1"),
        ("reauth", {}, ["--secret"], "asks for no secret"),
        ("reauth", {"secret": "shop"}, ["--secret"], "at a terminal that can hide it"),
        ("apply_changes", CHANGES, ["--change", "3"], "0 to 2"),
        ("apply_changes", CHANGES, ["--no", "--change", "1"], "--no that none is"),
        ("custom", {}, ["--yes"], "--resolution"),
        ("custom", {}, ["--resolution", '{"a": {"b": 1, "b": 2}}'], "'b' is named twice"),
    ],
)
def test_what_is_no_answer_is_one_line_and_exit_2(
    kind: str, payload: dict[str, Any], options: list[str], said: str
) -> None:
    Path("large").write_bytes(bytes(8 * 1024 * 1024 + 1))
    Path("s").write_bytes(b"s")
    asks(kind, payload)
    refused = reenact("approvals", "answer", "a1", *options)
    assert refused.code == 2 and said in one_line(refused)
    assert reenact("approvals", "--json").row["status"] == "pending"


def test_a_question_may_be_taken_back() -> None:
    asks("confirm", {})
    assert reenact("approvals", "cancel", "a1", "--reason", "too late").code == 0
    shown = reenact("approvals", "show", "a1").out
    assert "taken back" in shown and "too late" in shown and "cli:" in shown
    assert "is over: cancelled" in one_line(reenact("approvals", "answer", "a1", "--yes"))


class SomebodyElse(Commands):
    """Somebody who says yes at another terminal, between another's look at a question and what they say of it."""

    def cancel(self, url: str, action_id: str, reason: str | None) -> Any:
        self.decide(url, action_id, {"approved": True}, None)
        return super().cancel(url, action_id, reason)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_who_takes_back_too_late_what_was_allowed_is_told_so(options: list[str]) -> None:
    Path("script.json").write_text(
        json.dumps([{"tool_calls": [{"name": "refund", "input": {"order": "42"}}]}, {"text": "ok"}])
    )
    assert reenact("run", "refund", "-m", "scripted:script.json", "--tools", "tools.py").code == 1
    out, err = Stream(), Stream()
    argv = ["approvals", "cancel", "a1", *options]
    code = main(argv, SomebodyElse(), stdin=Stream(), stdout=out, stderr=err)
    late = Ended(code, out.getvalue(), err.getvalue())
    assert late.code == 1 and "is over: approved by cli:" in one_line(late)
    assert reenact("resume").code == 0 and "refunded 42" in reenact("messages", "last").out


# -- at a terminal --


def typed(*keys: str, row: dict[str, Any]) -> tuple[Said | None, str]:
    err = Stream(terminal=True)
    stdin = Stream("".join(f"{key}\n" for key in keys), terminal=True)
    return Person(Output(Stream(), err), stdin, lambda: False).answers(["A question"], row), err.getvalue()


def test_no_option_looks_like_another_line_of_the_list() -> None:
    options = ["staging\n  2) nowhere\u2028  2) cancel\x1b[2K", "production"]
    said, shown = typed("2", row={"type": "choose", "payload": {"options": options}, "call": None})
    assert said is not None and said.resolution == {"choice": "production"}
    assert [line for line in shown.splitlines() if line.lstrip().startswith("2)")] == ["  2) production"]
    assert "\x1b[2K" not in shown


@pytest.mark.parametrize(
    ("kind", "payload", "keys", "resolution"),
    [
        ("confirm", {}, ["what", "y"], {"approved": True}),
        ("confirm", {}, ["n", "no time"], {"approved": False, "comment": "no time"}),
        ("confirm", {}, [""], None),
        ("choose", {"options": ["a", "b"]}, ["3", "x", "1,2", "2"], {"choice": "b"}),
        ("choose", {"options": ["a", "b"]}, [""], None),
        ("choose", {"options": ["a", "b", "c"], "multiple": True}, ["3, 1"], {"choices": ["c", "a"]}),
        ("input", {}, ["some words"], {"text": "some words"}),
        ("input", {}, [""], None),
        ("upload", {}, [""], None),
        ("reauth", {}, ["maybe", "y"], {"authenticated": True}),
        ("reauth", {}, ["n", ""], {"authenticated": False}),
        ("reauth", {"secret": "shop"}, ["hunter22"], None),  # this is no terminal that could hide it
        ("apply_changes", CHANGES, ["4", "0,2"], {"approved": True, "changes": [0, 2]}),
        ("apply_changes", CHANGES, ["n", "no"], {"approved": False, "comment": "no"}),
        ("custom", {}, ["[1]", '{"a": 1}'], {"a": 1}),
        ("custom", {}, [], None),
    ],
)
def test_at_a_terminal_each_kind_is_asked_in_its_own_way(
    kind: str, payload: dict[str, Any], keys: list[str], resolution: dict[str, Any] | None
) -> None:
    said, shown = typed(*keys, row={"type": kind, "payload": payload, "call": None})
    assert (None if said is None else said.resolution) == resolution
    assert "A question" in shown


def test_files_are_asked_for_one_by_one(here: Path) -> None:
    (here / "one").write_text("1")
    said, shown = typed("none", "one", "", row={"type": "upload", "payload": {}, "call": None})
    assert said is not None and [each["name"] for each in said.resolution["files"]] == ["one"]
    assert "none: there is no such file" in shown


def test_without_an_option_the_command_asks_at_the_terminal() -> None:
    asks("choose", {"options": ["red", "blue"]})
    ended = at_terminal("approvals", "answer", "a1", keys=["2"])
    assert ended.code == 0 and "1) red" in ended.err and "answered" in ended.out
    assert heard() == {"choice": "blue"}


def script(kind: str, payload: dict[str, Any]) -> None:
    call = {"name": "ask", "input": {"kind": kind, "payload": json.dumps(payload)}}
    Path("script.json").write_text(json.dumps([{"tool_calls": [call]}, {"text": "Done."}]))


IN_PLACE = [
    ("confirm", {}, ("y",), {"approved": True}),
    ("approval", {}, ("n", ""), {"approved": False}),
    ("choose", {"options": ["red", "blue"]}, ("2",), {"choice": "blue"}),
    ("input", {"min_length": 3}, ("ab", "abc"), {"text": "abc"}),
    ("reauth", {}, ("y",), {"authenticated": True}),
    ("apply_changes", CHANGES, ("1",), {"approved": True, "changes": [1]}),
    ("custom", {}, ('{"a": 1}',), {"a": 1}),
]


@pytest.mark.parametrize(("kind", "payload", "keys", "resolution"), IN_PLACE)
def test_run_asks_in_the_middle_of_a_turn_and_the_tool_goes_on(
    kind: str, payload: dict[str, Any], keys: tuple[str, ...], resolution: dict[str, Any]
) -> None:
    script(kind, payload)
    ended = at_terminal("run", "ask", "-m", "scripted:script.json", "--tools", "tools.py", keys=keys)
    assert ended.code == 0 and "Done." in ended.out, ended.err
    rows = map(json.loads, reenact("events", "--session", "last", "--json").out.splitlines())
    [settled] = [row["data"] for row in rows if row["type"] == "tool_settled"]
    assert json.loads(settled["output"]) == resolution


@pytest.mark.parametrize(("kind", "payload", "keys", "resolution"), IN_PLACE)
def test_left_for_later_it_is_asked_again_by_resume(
    kind: str, payload: dict[str, Any], keys: tuple[str, ...], resolution: dict[str, Any]
) -> None:
    script(kind, payload)
    left = at_terminal("run", "ask", "-m", "scripted:script.json", "--tools", "tools.py", keys=("",))
    assert left.code == 1 and "waits for a person" in left.err
    assert ("approvals approve" if kind == "approval" else "approvals answer") in left.err
    again = at_terminal("resume", keys=("",))
    assert again.code == 1 and "waits for a person" in again.err
    gone_on = at_terminal("resume", keys=keys)
    assert gone_on.code == 0 and "Done." in gone_on.out
    rows = map(json.loads, reenact("events", "--session", "last", "--json").out.splitlines())
    [settled] = [row["data"] for row in rows if row["type"] == "tool_settled"]
    assert json.loads(settled["output"]) == resolution


def test_a_process_that_a_tool_began_answers_nothing_at_its_terminal_either(monkeypatch: pytest.MonkeyPatch) -> None:
    asks("confirm", {})
    monkeypatch.setenv("REENACT_TOOL_CALL", "sess_1:t7")
    refused = at_terminal("resume", keys=("y",))
    assert refused.code == 1 and "begun by sess_1:t7" in refused.err
    assert "begun by sess_1:t7" in reenact("resume", "last", "--settle", "t1=ok").err
    monkeypatch.delenv("REENACT_TOOL_CALL")
    assert reenact("approvals", "--json").row["status"] == "pending"


# -- a login --

SECRET = "correct horse battery"

OWNER = '''
import asyncio, json, sys
from reenact import ActionSpec, Runtime, ToolContext, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted

@tool(effect="idempotent")
async def login(context: ToolContext) -> str:
    """Log in."""
    action = await context.actions.require_action(ActionSpec(type="reauth", payload={"secret": "shop"}))
    action = await context.actions.wait_for_resolution(action.action_id)
    value = context.secret("shop").reveal()
    return json.dumps([action.resolution, len(value), value])

async def work():
    steps = [{"tool_calls": [{"name": "login", "input": {}}]}, {"text": "Done."}]
    async with Runtime("sqlite:///agents.db", models=Models({"scripted": Scripted(steps)}), tools=[login]) as runtime:
        told = []
        runtime.on_any(lambda event: told.append(repr(event)))
        ended = asyncio.Event()
        runtime.on("job_succeeded", lambda event: ended.set())
        bot = await runtime.image("support", model="scripted:any")
        print((await bot.send("log in")).status, flush=True)
        await ended.wait()
        stored = await runtime.events(bot.session_id)
        [settled] = [event.data.output for event in stored if event.type == "tool_settled"]
        print(settled, flush=True)
        print(json.dumps("\\n".join(told)), flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(work())
'''


@contextmanager
def terminal(*argv: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A command of ours in a process of its own, whose stdin and stderr are a terminal."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "reenact", *argv]
    process = subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True)
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def shown_until(fd: int, text: str) -> str:
    shown = ""
    while text not in shown and select.select([fd], [], [], 20)[0]:
        shown += os.read(fd, 4096).decode()
    assert text in shown
    return shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no terminals of this kind")
def test_a_secret_is_typed_unseen_handed_to_the_tool_and_nowhere_else(here: Path) -> None:
    with owning(OWNER) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "waiting\n"
        argv = ("approvals", "answer", "a1", "--secret", "--db", "sqlite:///agents.db")
        with terminal(*argv) as (keyboard, process):
            shown = shown_until(keyboard, "not stored): ")
            cmdline = Path(f"/proc/{process.pid}/cmdline")
            if cmdline.exists():
                assert SECRET.encode() not in cmdline.read_bytes()
            os.write(keyboard, f"{SECRET}\n".encode())
            out, _ = process.communicate(timeout=20)
            while select.select([keyboard], [], [], 0)[0]:
                try:
                    shown += os.read(keyboard, 4096).decode()
                except OSError:
                    break
            assert process.returncode == 0 and out.endswith("reauth logged in\n")
        resolution, length, value = json.loads(owner.stdout.readline())
        told = json.loads(owner.stdout.readline())
        assert resolution == {"authenticated": True, "secret": "shop"}
        assert length == len(SECRET) and value == "[secret:shop]", "the tool had it, and the log has its name"
        everything = "".join(each.read_bytes().decode("latin-1") for each in here.rglob("*") if each.is_file())
        for text in (shown, out, told, everything, reenact("audit", "--json", "--db", "sqlite:///agents.db").out):
            assert SECRET not in text
        owner.communicate("\n")


def test_where_no_process_could_keep_it_a_secret_is_not_taken() -> None:
    from reenact.cli.decisions import decide
    from reenact.events.errors import Refused

    asks("reauth", {"secret": "shop"})
    row = reenact("approvals", "--json").row
    with pytest.raises(Refused, match="No process works on this log"):
        decide("sqlite:///reenact.db", row["id"], {"authenticated": True}, None, secret=SECRET)
    assert reenact("approvals", "--json").row["status"] == "pending"


# -- what was decided, and what was allowed for good --


def refunds(*decision: str) -> str:
    """A call that waits, decided; what `show` says of it then."""
    call = {"name": "refund", "input": {"order": "42"}}
    Path("script.json").write_text(json.dumps([{"tool_calls": [call]}, {"text": "Done."}] * 4))
    assert reenact("run", "refund", "-m", "scripted:script.json", "--tools", "tools.py", "-s", "shop").code == 1
    assert reenact("approvals", *decision).code == 0
    return reenact("approvals", "show", "a1").out


def test_show_tells_what_was_decided_by_whom_when_and_why() -> None:
    shown = refunds("approve", "a1", "--comment", "fine \u202ewith me")
    assert "approved 20" in shown and "by cli:" in shown and "fine \\u202ewith me" in shown
    assert "Then" not in shown and reenact("resume").code == 0
    assert "Then       it ended: ok" in reenact("approvals", "show", "a1").out


def test_show_tells_an_edit_before_and_after() -> None:
    shown = refunds("edit", "a1", "--arguments", '{"order": "4\u200b3"}', "--tools", "tools.py")
    assert "edited 20" in shown and '"order": "42"' in shown and '"order": "4\\u200b3"' in shown
    listed = reenact("approvals", "ls", "--all").out
    assert "edited" in listed and "cli:" in listed


def test_deciding_once_more_says_how_it_was_decided() -> None:
    refunds("deny", "a1", "--comment", "no")
    refused = one_line(reenact("approvals", "approve", "a1"))
    assert "is over: denied by cli:" in refused and "Nothing" not in refused


def test_what_is_allowed_for_good_is_listed_and_taken_back(here: Path) -> None:
    refunds("approve", "a1", "--always", "exact", "--comment", "always fine")
    assert reenact("resume").code == 0
    row = reenact("approvals", "grants", "--json").row
    assert (row["kind"], row["name"], row["arguments"], row["used"]) == ("exact", "refund", {"order": "42"}, 0)
    assert row["by"].startswith("cli:") and row["digest"].startswith("sha256:") and row["givenAt"] > 0
    again = ("run", "refund", "-m", "scripted:script.json", "--tools", "tools.py", "-s", "shop")
    assert reenact(*again).code == 0
    assert reenact("approvals", "grants", "--json").row["used"] == 1
    assert "refund(order=" in reenact("approvals", "grants").out
    assert "asked for again" in reenact("approvals", "revoke", "a1").out
    assert reenact("approvals", "grants").out == ""
    back = reenact("approvals", "grants", "--all", "--json").row
    assert back["revokedBy"].startswith("cli:") and back["revokedAt"] >= row["givenAt"]
    assert "grant_revoked" in reenact("events", "--session", "shop").out
    assert reenact(*again).code == 1, "the next such call asks"
    assert "allowed for good" in one_line(reenact("approvals", "revoke", "a1"))
