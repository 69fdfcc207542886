"""resume: calls in doubt that wait for a person, sessions whose tools are gone, and what is left to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.working import Working
from reenact.events.log import Row
from tests.adapters.cli.terminal import one_line, reenact
from tests.adapters.cli.work import killed_in_a_charge
from tests.faults.test_poison import DAMAGED, NEWER, append

pytestmark = pytest.mark.usefixtures("tools")


def test_where_no_log_is_there_is_none_to_resume_and_none_is_begun() -> None:
    ended = reenact("resume")

    assert ended.code != 0 and "no log has been started there" in one_line(ended)
    assert not Path("reenact.db").exists()


def test_there_may_be_nothing_to_resume() -> None:
    reenact("run", "hi", "-m", "scripted:hello")

    ended = reenact("resume")

    assert (ended.code, ended.out) == (0, "") and "nothing is left" in ended.err


def test_a_call_in_doubt_waits_for_a_person_and_goes_on_when_he_has_spoken(here: Path) -> None:
    killed_in_a_charge(here, "--session", "s")
    session = reenact("sessions", "--json").row["sessionId"][-8:]

    ended = reenact("resume", "--tools", "tools.py")

    assert (ended.code, ended.out) == (1, "")
    assert f"reenact resume {session} --settle t1=ok|error|retry" in ended.err and "charge(cents=1250)" in ended.err
    assert reenact("ps", "--json").row["state"] == "waiting"

    ended = reenact("resume", "--tools", "tools.py")
    assert ended.code == 1 and "--settle t1=" in ended.err, "it waits as long as nobody has spoken"

    ended = reenact("resume", session, "--settle", "t1=ok", "--output", "it is on the statement", "--tools", "tools.py")
    assert ended == (0, "All done.\n", "")
    assert (here / "charged").read_text() == "1250\n"
    assert reenact("replay", "s", "--json").row["identical"] is True

    ended = reenact("resume", session, "--settle", "t1=error", "--tools", "tools.py")
    assert "t1 was over already" in ended.err and ended.code == 0


def test_a_call_in_doubt_may_be_run_again_if_a_person_says_so(here: Path) -> None:
    killed_in_a_charge(here)
    reenact("resume", "--tools", "tools.py")

    ended = reenact("resume", "last", "--settle", "t1=retry", "--tools", "tools.py")

    assert ended == (0, "All done.\n", "")
    assert (here / "charged").read_text() == "1250\n1250\n"


@pytest.mark.parametrize(("settle", "code"), [("t9=ok", 1), ("t1=maybe", 2), ("t1", 2), ("=ok", 2)])
def test_what_settles_nothing_is_one_line_and_changes_nothing(here: Path, settle: str, code: int) -> None:
    killed_in_a_charge(here)
    reenact("resume", "--tools", "tools.py")
    before = len(reenact("events", "--json").rows)

    ended = reenact("resume", "last", "--settle", settle, "--tools", "tools.py")

    assert ended.code == code and one_line(ended)
    assert len(reenact("events", "--json").rows) == before


def test_a_session_finds_the_file_its_tools_came_from(here: Path) -> None:
    killed_in_a_charge(here)

    ended = reenact("resume")

    assert str(here / "tools.py") in ended.err and "waits for a person" in ended.err


def test_without_its_tools_a_session_is_left_as_it_is(here: Path) -> None:
    killed_in_a_charge(here)
    (here / "tools.py").rename(here / "moved.py")
    before = len(reenact("events", "--json").rows)

    ended = reenact("resume")

    assert ended.code == 1 and "charge" in one_line(ended) and "--tools" in one_line(ended)
    assert len(reenact("events", "--json").rows) == before
    assert reenact("resume", "--tools", "moved.py").code == 1, "now it waits for a person"


def test_a_run_leaves_alone_what_another_session_owes_and_says_so(here: Path) -> None:
    killed_in_a_charge(here, "--session", "left")
    before = len(reenact("events", "--session", "left", "--json").rows)

    ended = reenact("run", "hi", "-m", "scripted:hello")

    assert ended.code == 0 and ended.out.startswith("Hello!") and "reenact resume" in ended.err
    assert len(reenact("events", "--session", "left", "--json").rows) == before


def test_several_sessions_are_taken_up_together(here: Path) -> None:
    for name in ("a", "b"):
        (here / "inside").unlink(missing_ok=True)
        killed_in_a_charge(here, "--session", name)
    for name in ("a", "b"):
        reenact("resume", name, "--tools", "tools.py")

    for name in ("a", "b"):
        with Working("sqlite:///reenact.db", tools=["tools.py"]) as working:
            working.runtime.wait(
                working.runtime.asynchronous.resolve(working.session(name), "t1", "ok", f"settled {name}")
            )
    ended = reenact("resume", "--tools", "tools.py")

    assert ended.code == 0
    assert {row["state"] for row in reenact("ps", "--all", "--json").rows} == {"succeeded"}


def test_a_session_that_cannot_be_read_keeps_no_other_from_going_on(here: Path) -> None:
    import sqlite3

    for name in ("bad", "good"):
        (here / "inside").unlink(missing_ok=True)
        killed_in_a_charge(here, "--session", name)
        reenact("resume", name, "--tools", "tools.py")
    bad = reenact("sessions", "--json").rows[1]
    assert bad["name"] == "bad"
    last = reenact("events", "--session", "bad", "--json").rows[-1]["position"]
    with sqlite3.connect(here / "reenact.db") as db:
        db.execute("UPDATE events SET data = x'c1' WHERE position = ?", (last,))
    db.close()

    ended = reenact("resume", "good", "--settle", "t1=ok", "--tools", "tools.py")
    assert ended == (0, "All done.\n", "")
    ended = reenact("resume", "--tools", "tools.py")
    assert ended.code == 1 and f"session {bad['sessionId'][-8:]} is left as it is" in one_line(ended)


def test_resume_with_json_tells_every_event(here: Path) -> None:
    killed_in_a_charge(here)

    ended = reenact("resume", "--tools", "tools.py", "--json")

    assert ended.code == 1
    assert [row["type"] for row in ended.rows] == ["tool_doubted", "tool_unproved", "job_waiting"]


def test_a_message_behind_one_that_waits_for_a_person_is_queued_and_says_for_what(here: Path) -> None:
    """Fails where the command only watches its own job: it would wait for ever, and own the log meanwhile."""
    killed_in_a_charge(here)
    assert reenact("resume", "--tools", "tools.py").code == 1, "now it waits for a person"
    ended = reenact("run", "and then?", "--session", "last", "--tools", "tools.py")
    assert ended.code == 1 and "this message is queued behind that" in ended.err
    assert "--settle t1=ok|error|retry" in ended.err
    twice = reenact("resume", "last", "--settle", "t1=ok", "--settle", "t1=error", "--tools", "tools.py")
    assert twice.code == 2 and "says twice" in twice.err
    assert reenact("resume", "last", "--settle", "t1=ok", "--tools", "tools.py").code == 0
    assert "and then?" in reenact("messages", "last").out


@pytest.mark.parametrize("row", [DAMAGED, NEWER], ids=["damaged", "newer"])
def test_a_session_that_cannot_be_gone_on_with_is_left_and_named_and_the_others_go_on(here: Path, row: Row) -> None:
    for name in ("ill", "well"):
        (here / "inside").unlink(missing_ok=True)
        killed_in_a_charge(here, "--session", name)
    ids = {row["name"]: row["sessionId"] for row in reenact("sessions", "--json").rows}
    log = SqliteLog(here / "reenact.db")
    stream = f"session-{ids['ill']}"
    append(log, stream, row, owes=log.read(stream)[-1].batch.head.owes)
    log.close()

    ended = reenact("resume", "--tools", "tools.py")

    assert ended.code == 1 and f"session {ids['ill'][-8:]} is left as it is: " in ended.err
    assert f"reenact resume {ids['well'][-8:]} --settle t1=" in ended.err
    assert f"reenact resume {ids['ill'][-8:]}" not in ended.err, "it would be in vain"
    assert reenact("resume", "well", "--settle", "t1=ok", "--output", "", "--tools", "tools.py").out == "All done.\n"
