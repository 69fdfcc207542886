"""run, chat and resume where a person is waited for: what ends before they do, what is begun, what is queued behind."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from reenact.adapters.cli.app import main
from reenact.cli.commands import Commands
from tests.adapters.cli.processes import kill, process, wait_for
from tests.adapters.cli.terminal import Ended, Stream, reenact

TOOLS = '''
import asyncio
from pathlib import Path

from reenact import tool

HERE = Path(__file__).parent


@tool(approval="ask")
def refund(order: str) -> str:
    """Refund an order."""
    with open(HERE / "refunds", "a") as file:
        file.write(order)
    return f"refunded {order}"


@tool
async def charge() -> str:
    """Charge a card."""
    (HERE / "inside").touch()
    while (HERE / "wait").exists():
        await asyncio.sleep(0.01)
    return "charged"
'''


@pytest.fixture(autouse=True)
def here(here: Path) -> Path:
    (here / "tools.py").write_text(TOOLS)
    return here


def ask(*calls: str) -> tuple[str, ...]:
    """The command whose answer makes these calls: `charge`, or an order to refund. What is sent later is echoed."""
    named = [
        {"name": "charge", "input": {}} if call == "charge" else {"name": "refund", "input": {"order": call}}
        for call in calls
    ]
    Path("script.json").write_text(json.dumps([{"tool_calls": named}, {"text": "All done."}]))
    return "run", "go", "-m", "scripted:script.json", "--tools", "tools.py", "--session", "s"


def begun(here: Path, *argv: str) -> subprocess.Popen[str]:
    """The command in a process of its own, at the moment when its charge runs and its job waits for a person."""
    (here / "wait").touch()
    child = process(*argv)
    while not ((here / "inside").exists() and "job_waiting" in types()):
        assert child.poll() is None, child.communicate()
    return child


def types() -> list[str]:
    ended = reenact("events", "--session", "s", "--json")
    return [row["type"] for row in ended.rows] if ended.code == 0 else []


def refunds() -> str:
    return Path("refunds").read_text() if Path("refunds").exists() else ""


def test_a_run_ends_as_waiting_when_the_call_beside_the_question_has_ended(here: Path) -> None:
    child = begun(here, *ask("1", "charge"))
    (here / "wait").unlink()
    _, err = child.communicate()

    assert child.returncode == 1 and 'waits for a person: refund(order="1")' in err
    [settled] = reenact("events", "--session", "s", "--type", "tool_settled", "--json").rows
    assert (settled["data"]["tool"], settled["data"]["outcome"]) == ("t2", "ok")
    assert reenact("approvals", "approve", "a1").code == 0
    assert reenact("resume").out == "All done.\n" and refunds() == "1"
    assert "tool_doubted" not in types()


def test_ctrl_c_stops_it_at_once_and_takes_the_question_back(here: Path) -> None:
    child = begun(here, *ask("1", "charge"))
    child.send_signal(signal.SIGINT)
    child.communicate()

    assert child.returncode == 130 and reenact("ps", "--json").rows == []
    assert "nothing waits" in reenact("approvals").err and (here / "wait").exists()


def test_resume_begins_what_was_approved_and_then_waits_for_the_rest() -> None:
    assert reenact(*ask("1", "2", "3")).code == 1
    assert reenact("approvals", "approve", "a2").code == 0
    assert refunds() == ""

    ended = reenact("resume")
    assert ended.code == 1 and refunds() == "2"
    assert 'waits for a person: refund(order="1")' in ended.err and "approvals approve" in ended.err
    before = types()
    assert reenact("resume").code == 1 and types() == before, "nothing can go on now"
    assert reenact("approvals", "deny", "a1").code == 0
    assert reenact("resume").code == 1
    assert reenact("approvals", "approve", "a3").code == 0
    assert reenact("resume").out == "All done.\n" and refunds() == "23"
    assert reenact("replay", "s").code == 0


def test_ctrl_c_in_a_resume_stops_what_goes_on_and_leaves_alone_what_only_waits(here: Path) -> None:
    assert reenact(*ask("1")[:-1], "other").code == 1
    child = begun(here, *ask("1", "charge"))
    kill(child)
    assert reenact("resume", "s").code == 1 and "tool_unproved" in types()
    (here / "inside").unlink()
    resumed = process("resume", "s", "--settle", "t2=retry", "--tools", "tools.py")
    wait_for(here / "inside", resumed)
    resumed.send_signal(signal.SIGINT)
    resumed.communicate()

    assert resumed.returncode == 130
    [left] = reenact("ps", "--json").rows
    assert left["state"] == "waiting"


def test_a_message_behind_a_question_is_queued_names_it_and_is_answered_after_it() -> None:
    assert reenact(*ask("1")).code == 1
    second = reenact("run", "and then?", "-m", "scripted:echo", "--session", "s", "--tools", "tools.py")
    assert second.code == 1 and second.out == ""
    assert 'waits for a person: refund(order="1")' in second.err and ":a1 (or deny, or edit)" in second.err
    assert "is queued" in second.err
    third = reenact("chat", "-m", "scripted:echo", "--session", "s", "--tools", "tools.py", stdin="and then?\n")
    assert third.code == 1 and third.err.count("is queued") == 1
    assert sorted(row["state"] for row in reenact("ps", "--json").rows) == ["queued", "queued", "waiting"]

    assert reenact("approvals", "approve", "a1").code == 0
    ended = reenact("resume")
    assert (ended.code, ended.out) == (0, "All done.\nand then?\nand then?\n") and refunds() == "1"


class Leaves(Stream):
    """A person who leaves every question for later, and has a little time."""

    def readline(self, *args: object) -> str:  # type: ignore[override]
        threading.Timer(0.2, Path("wait").unlink, [True]).start()
        return "\n"


def test_left_for_later_at_a_terminal_what_was_begun_ends_first(here: Path) -> None:
    (here / "wait").touch()
    out, err = Stream(terminal=True), Stream(terminal=True)
    argv = ask("1", "charge")
    code = main(argv, Commands(), stdin=Leaves(terminal=True), stdout=out, stderr=err)
    ended = Ended(code, out.getvalue(), err.getvalue())

    assert ended.code == 1 and "approvals approve" in ended.err
    [settled] = reenact("events", "--session", "s", "--type", "tool_settled", "--json").rows
    assert (settled["data"]["tool"], settled["data"]["outcome"]) == ("t2", "ok")
