"""approvals ls, show, approve, deny, edit: beside an owner and without one; and asking in the middle of a turn."""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reenact.adapters.cli.output import Output
from reenact.adapters.cli.person import Person
from reenact.adapters.logs.sqlite import SqliteLog
from tests.adapters.cli.processes import owning
from tests.adapters.cli.terminal import Ended, Stream, at_terminal, one_line, reenact
from tests.faults.test_poison import DAMAGED, append

TOOLS = '''
from pathlib import Path

from reenact import tool


@tool(effect="idempotent", approval="ask")
def refund(order: str, cents: int = 0) -> str:
    """Refund an order."""
    with open(Path(__file__).parent / "refunds", "a") as file:
        file.write(f"{order} {cents}\\n")
    return f"refunded {cents} cents of order {order}"
'''


@pytest.fixture(autouse=True)
def here(here: Path) -> Path:
    (here / "tools.py").write_text(TOOLS)
    steps = [
        {"text": "I refund it.", "tool_calls": [{"name": "refund", "input": {"order": "42", "cents": 1250}}]},
        {"text": "It is done."},
    ]
    (here / "script.json").write_text(json.dumps(steps))
    return here


ASK = ("run", "Refund order 42", "-m", "scripted:script.json", "--tools", "tools.py")


def refunds() -> str:
    path = Path("refunds")
    return path.read_text() if path.exists() else ""


def test_a_run_in_a_pipe_ends_telling_how_to_approve_and_resume_goes_on() -> None:
    asked = reenact(*ASK)
    assert asked.code == 1 and refunds() == ""
    assert 'waits for a person: refund(order="42", cents=1250)' in asked.err and "approvals approve" in asked.err
    row = reenact("approvals", "--json").row
    assert (row["status"], row["call"]["arguments"]) == ("pending", {"order": "42", "cents": 1250})
    assert "refund(order=" in reenact("approvals").out
    shown = reenact("approvals", "show", "a1").out
    assert '  |   "order": "42",' in shown and row["digest"] in shown
    approved = reenact("approvals", "approve", "a1", "--comment", "fine", "--json")
    assert approved.code == 0 and approved.row["resolution"] == {"approved": True, "comment": "fine"}
    assert "reenact resume" in approved.err and refunds() == ""
    gone_on = reenact("resume")
    assert gone_on.code == 0 and "It is done." in gone_on.out and refunds() == "42 1250\n"
    assert "nothing waits" in reenact("approvals").err
    assert "identical" in reenact("replay", "last").out


def test_denied_the_call_does_not_run_and_the_job_goes_on() -> None:
    reenact(*ASK)
    denied = reenact("approvals", "deny", "a1", "--comment", "too much")
    assert denied.code == 0 and denied.out.endswith('refund(order="42", cents=1250) denied\n')
    assert reenact("resume").code == 0 and refunds() == ""
    assert "too much" in reenact("messages", "last", "--json").out


def test_edited_it_runs_with_the_arguments_of_the_person() -> None:
    reenact(*ASK)
    wrong = reenact("approvals", "edit", "a1", "--arguments", '{"order": 3}')
    assert wrong.code == 1 and "Expected `str`" in one_line(wrong)
    assert "no JSON" in one_line(reenact("approvals", "edit", "a1", "--arguments", "{"))
    assert "EDITOR" in one_line(reenact("approvals", "edit", "a1"))
    assert reenact("approvals", "edit", "a1", "--arguments", '{"order": "43"}').code == 0
    assert reenact("resume").code == 0 and refunds() == "43 0\n"


def test_arguments_in_which_a_key_stands_twice_are_refused() -> None:
    reenact(*ASK)
    for arguments in ('{"order": "43", "order": "44"}', '{"order": "43", "\\u006frder": "44"}'):
        refused = reenact("approvals", "edit", "a1", "--arguments", arguments)
        assert refused.code == 2 and "'order' is named twice" in one_line(refused)
    assert reenact("approvals", "--json").row["status"] == "pending"


def test_an_editor_may_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/42/44/")
    reenact(*ASK)
    assert reenact("approvals", "edit", "a1").code == 0
    assert reenact("resume").code == 0 and refunds() == "44 1250\n"
    monkeypatch.setenv("EDITOR", "false")
    reenact(*ASK)
    waiting = reenact("approvals", "--json").row["id"]
    assert "nothing was decided" in one_line(reenact("approvals", "edit", waiting))


def test_what_cannot_be_decided_is_said_in_one_line() -> None:
    reenact(*ASK)
    assert "other" not in one_line(reenact("approvals", "approve", "a2"))
    assert "not what you were shown" in one_line(reenact("approvals", "approve", "a1", "--digest", "sha256:0"))
    assert "digest must be a text" in one_line(reenact("approvals", "approve", "a1", "--digest", ""))
    assert "effect='read'" in one_line(reenact("approvals", "approve", "a1", "--always", "class"))
    session = reenact("approvals", "--json").row["sessionId"]
    assert reenact("approvals", "approve", f"{session[-8:]}:a1").code == 0
    assert "over" in one_line(reenact("approvals", "approve", f"{session}:a1"))
    assert "has no action" in one_line(reenact("approvals", "show", f"{session}:a9"))


def test_a_number_that_questions_of_two_sessions_had_gives_no_consent_though_one_is_over() -> None:
    reenact(*ASK)
    first = reenact("approvals", "--json").row["id"]
    assert reenact("approvals", "show", "a1").code == 0
    assert reenact("approvals", "deny", first).code == 0
    reenact(*ASK)
    second = reenact("approvals", "--json").row["id"]
    for command in ("approve", "deny", "show", "answer"):
        refused = one_line(reenact("approvals", command, "a1"))
        assert f"{second[-11:]}, {first[-11:]}" in refused, "what waits comes first"
    assert reenact("approvals", "--json").row["status"] == "pending"
    approved = reenact("approvals", "approve", second)
    assert 'refund(order="42", cents=1250) approved' in approved.out, "what was approved is told"


def test_what_is_told_of_an_edited_call_is_what_it_runs_with() -> None:
    reenact(*ASK)
    edited = reenact("approvals", "edit", "a1", "--arguments", '{"order": "43"}', "--tools", "tools.py")
    assert 'refund(order="43") approved with other arguments' in edited.out


def test_a_word_that_merely_ends_the_id_of_a_session_gives_no_consent() -> None:
    reenact(*ASK)
    session = reenact("approvals", "--json").row["sessionId"]
    for length in (1, 2, 4, 7):
        assert one_line(reenact("approvals", "approve", session[-length:]))
    assert reenact("approvals", "approve", session[-8:]).code == 0, "as it is shown it may be typed"


def test_always_exactly_this_is_asked_no_more(here: Path) -> None:
    steps = json.loads((here / "script.json").read_text())
    (here / "script.json").write_text(json.dumps([*steps, *steps]))
    reenact(*ASK, "-s", "shop")
    assert reenact("approvals", "approve", "a1", "--always", "exact").code == 0
    assert reenact("resume").code == 0
    again = reenact(*ASK, "-s", "shop")
    assert again.code == 0 and refunds() == "42 1250\n42 1250\n"


def asked(*keys: str) -> Ended:
    return at_terminal(*ASK, keys=keys)


def test_at_a_terminal_it_asks_in_place() -> None:
    ended = asked("what", "y")
    assert ended.code == 0 and refunds() == "42 1250\n"
    assert "Allow it?" in ended.err and '"order": "42"' in ended.err and "It is done." in ended.out


def test_no_at_a_terminal_is_no_with_a_reason() -> None:
    ended = asked("n", "not today")
    assert ended.code == 0 and refunds() == ""
    assert "not today" in reenact("messages", "last", "--json").out


def test_an_edit_that_changes_nothing_decides_nothing_and_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "true")
    ended = asked("e", "")
    assert ended.code == 1 and refunds() == "" and ended.err.count('"order": "42"') == 2
    assert "Nothing was changed" in ended.err and reenact("approvals", "--json").row["status"] == "pending"
    assert "nothing was changed" in one_line(reenact("approvals", "edit", "a1"))
    assert reenact("approvals", "--json").row["status"] == "pending"


@pytest.mark.parametrize(
    ("keys", "ran"), [(("y",), "44 1250\n"), (("n", ""), ""), (("",), ""), ((), ""), (("what", "y"), "44 1250\n")]
)
def test_after_a_change_what_will_run_is_shown_and_asked_once_more(
    monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...], ran: str
) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/42/44/")
    ended = asked("e", *keys)
    assert refunds() == ran and ended.code == (0 if ran else 1)
    assert '|   "order": "44"' in ended.err and "Run it with these?" in ended.err


def test_without_an_editor_the_arguments_are_a_line_of_json() -> None:
    ended = asked("e", "{", "e", '{"order": "45"}', "e", '{"order": "46"}', "y")
    assert ended.code == 0 and refunds() == "46 0\n" and "no JSON" in ended.err
    assert "--arguments" not in ended.err and asked("e", "", "").code == 1


def test_what_an_editor_leaves_that_is_no_text_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    reenact(*ASK)
    for editor in ("truncate -s 0", "rm", "sh -c 'printf \"\\\\377\" > $0'"):
        monkeypatch.setenv("EDITOR", editor)
        assert "fault of the program" not in one_line(reenact("approvals", "edit", "a1"))
    assert "utf-8" in one_line(reenact("approvals", "edit", "a1"))


def test_left_for_later_it_says_how_to_go_on() -> None:
    ended = asked("")
    assert ended.code == 1 and refunds() == "" and "reenact approvals approve" in ended.err
    assert asked().code == 1, "nor is the end of what can be read a yes"


OWNER = """
import threading
from reenact.blocking import Runtime
from reenact.tools.toolbox import tools_from

with Runtime("sqlite:///reenact.db", tools=list(tools_from("tools.py").values())) as runtime:
    over = threading.Event()
    runtime.on("job_succeeded", lambda event: over.set())
    bot = runtime.image("support", model="scripted:script.json")
    print(bot.send("Refund order 42").result(20).status, flush=True)
    print(over.wait(20), flush=True)
    input()
"""


def test_the_owner_hears_of_a_decision_over_its_socket() -> None:
    """One process works on the log and waits; another approves; the first goes on."""
    with owning(OWNER) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "waiting\n"
        approved = reenact("approvals", "approve", "a1")
        assert approved.code == 0 and "resume" not in approved.err
        assert owner.stdout.readline() == "True\n" and refunds() == "42 1250\n"
        owner.communicate("\n")
        assert owner.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no terminals of this kind")
def test_what_was_typed_before_the_question_was_seen_answers_nothing() -> None:
    ours, theirs = os.openpty()
    err = Stream(terminal=True)
    with os.fdopen(theirs, "r") as stdin, os.fdopen(ours, "w") as keyboard:

        def typed(text: str) -> None:
            keyboard.write(text)
            keyboard.flush()

        typed("y\ny\n")
        with ThreadPoolExecutor(1) as thread:
            decided = thread.submit(Person(Output(Stream(), err), stdin, lambda: False).decides, ["May it?"], {"n": 1})
            while "for later: " not in err.getvalue():
                assert not decided.done()
                threading.Event().wait(0.01)
            typed("n\n")
            while "no reason: " not in err.getvalue():
                assert not decided.done(), decided.result()
                threading.Event().wait(0.01)
            typed("too much\n")
            assert decided.result(10) == {"approved": False, "comment": "too much"}


def test_lists_show_all_others_and_name_a_session_that_cannot_be_read() -> None:
    for name in ("ill", "well"):
        reenact(*ASK, "--session", name)
    ids = {row["name"]: row["sessionId"] for row in reenact("sessions", "--json").rows}
    log = SqliteLog(Path("reenact.db"))
    stream = f"session-{ids['ill']}"
    append(log, stream, DAMAGED, owes=log.read(stream)[-1].batch.head.owes)
    log.close()

    for command in ("approvals", "approvals grants", "ps", "cost"):
        listed = reenact(*command.split(), "--json")
        assert listed.code == 0 and f"WARNING reenact: {stream} is passed over" in listed.err
    assert [row["sessionId"] for row in reenact("approvals", "--json").rows] == [ids["well"]]
    assert [row["sessionId"] for row in reenact("ps", "--json").rows] == [ids["well"]]
    states = {row["name"]: row["state"] for row in reenact("sessions", "--json").rows}
    assert states == {"well": "waiting", "ill": "unreadable"}
    assert reenact("images").code == reenact("budget").code == 0
    assert reenact("approvals", "approve", f"{ids['well']}:a1").code == 0
    refused = reenact("approvals", "approve", f"{ids['ill']}:a1")
    assert refused.code == 1 and stream in refused.err and "job_queued" in refused.err
    for command in ("events", "audit"):
        ended = reenact(command)
        assert ended.code == 1 and stream in ended.err, "it ends there, by name"
