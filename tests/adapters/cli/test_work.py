"""run, chat and resume: what they print, what they leave in the log, and what goes wrong in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from reenact.adapters.cli.stop import stopping
from reenact.events.codec import TYPES
from reenact.events.log import Result, Transaction
from reenact.working import Working
from tests.adapters.cli.terminal import ESCAPES, one_line, reenact

TOOLS = '''
from pathlib import Path

from reenact import tool

HERE = Path(__file__).parent


@tool(effect="read")
def look(path: str) -> str:
    """Look into a file."""
    return f"looked into {path}"


@tool
def charge(cents: int) -> str:
    """Charge a card."""
    with open(HERE / "charged", "a") as file:
        file.write(f"{cents}\\n")
    (HERE / "inside").touch()
    while (HERE / "wait").exists():
        pass
    return f"charged {cents}"
'''


HERE = {"text": "I am here."}


@pytest.fixture(autouse=True)
def here(here: Path) -> Path:
    (here / "tools.py").write_text(TOOLS)
    return here


def script(*steps: object, name: str = "script.json") -> str:
    Path(name).write_text(json.dumps(steps))
    return f"scripted:{name}"


def process(*argv: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "reenact", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, child: subprocess.Popen[str]) -> None:
    """Until the file is there. The child's end is the bound."""
    while not path.exists():
        assert child.poll() is None, child.communicate()


def killed_in_a_charge(here: Path, *more: str) -> None:
    """Leaves a log behind in which a charge was begun and, as far as anybody knows, not ended."""
    model = script(
        {"text": "I charge.", "tool_calls": [{"name": "charge", "input": {"cents": 1250}}]}, {"text": "All done."}
    )
    (here / "wait").touch()
    child = process("run", "Charge it", "-m", model, "--tools", "tools.py", *more)
    wait_for(here / "inside", child)
    child.kill()
    child.communicate()
    (here / "wait").unlink()


# -- run --


def test_into_a_pipe_goes_the_answer_and_nothing_else() -> None:
    model = script(
        {"text": "Let me look.", "tool_calls": [{"name": "look", "input": {"path": "a"}}]}, {"text": "It says a."}
    )

    ended = reenact("run", "What does it say?", "-m", model, "--tools", "tools.py")

    assert ended == (0, "It says a.\n", "")


def test_with_json_every_event_and_signal_is_one_object_a_line() -> None:
    ended = reenact("run", "hi", "-m", "scripted:hello", "--json")

    types = [row["type"] for row in ended.rows]
    assert (types[0], types[-1]) == ("session_created", "job_succeeded")
    assert "".join(row["data"]["text"] for row in ended.rows if row["type"] == "text_delta").startswith("Hello!")
    assert {row["sessionId"] for row in ended.rows} == {reenact("sessions", "--json").row["sessionId"]}
    positions = [row["position"] for row in ended.rows if "position" in row]
    stored = [row["position"] for row in reenact("events", "--session", "last", "--json").rows]
    assert positions == stored
    assert all(("position" in row) == (row["type"] in TYPES) for row in ended.rows)


def test_a_lone_dash_reads_the_prompt_from_stdin() -> None:
    assert reenact("run", "-", "-m", "scripted:echo", stdin="from a pipe\n").out == "from a pipe\n"
    assert reenact("run", "-", "-m", "scripted:echo", stdin="").code == 2


def test_a_long_prompt_is_taken_and_one_that_is_too_long_is_refused_in_one_line() -> None:
    long = "ä" * 5_000_000
    assert reenact("run", "-", "-m", "scripted:hello", stdin=long).code == 0

    ended = reenact("run", "-", "-m", "scripted:hello", stdin=long * 2)

    assert ended.code == 2 and "at most" in one_line(ended)


def test_without_a_key_a_script_answers_and_a_note_says_how_to_change_that() -> None:
    ended = reenact("run", "hi")

    assert ended.code == 0 and ended.out.startswith("Hello!")
    assert "ANTHROPIC_API_KEY" in ended.err and ended.err.count("\n") == 1


def test_a_model_without_its_key_is_one_line_and_exit_1() -> None:
    ended = reenact("run", "hi", "-m", "anthropic:claude-sonnet-5-5")

    assert ended.code == 1 and "ANTHROPIC_API_KEY" in one_line(ended)
    assert reenact("ps", "--all", "--json").row["state"] == "failed"


def test_a_job_that_fails_is_one_line_and_exit_1() -> None:
    model = script({"error": {"code": "overloaded", "message": "come\nback later", "retryable": False}})

    ended = reenact("run", "hi", "-m", model)

    assert ended.code == 1 and "come back later" in one_line(ended)


def test_when_the_model_does_not_answer_the_fallbacks_do_and_every_list_says_so() -> None:
    ended = reenact(
        "run", "hi", "-m", "scripted:fails:auth", "--fallback", "scripted:fails:billing", "--fallback", script(HERE)
    )

    assert (ended.code, ended.out) == (0, "I am here.\n")
    selected = [row["data"] for row in reenact("events", "--type", "model_selected", "--json").rows]
    assert [(each["model"], each["reason"], each["because"]) for each in selected] == [
        ("scripted:fails:billing", "fallback", "auth"),
        ("scripted:script.json", "fallback", "billing"),
    ]
    assert "scripted:fails:billing as fallback after auth" in reenact("events", "-s", "last").out
    assert reenact("ps", "--all", "--json").row["model"] == "scripted:script.json"
    answered = {row["model"]: row["calls"] - row["failed"] for row in reenact("cost", "--json").rows}
    assert answered["script.json"] == 1 and answered["fails:auth"] == 0
    reasons = [row["context"]["reason"] for row in reenact("audit", "--type", "model.selected", "--json").rows]
    assert reasons == ["primary", "fallback", "fallback"]
    assert reenact("replay", "last").code == 0


def test_when_nobody_answers_one_line_names_them_all_and_a_named_image_keeps_its_fallbacks() -> None:
    given = ("-m", "scripted:fails:auth", "--fallback", "scripted:fails:billing", "--image", "bot", "--session", "s")

    ended = reenact("run", "hi", *given)
    again = reenact("run", "hi", "--session", "s")

    for each in (ended, again):
        assert each.code == 1
        assert "scripted:fails:auth (auth, 401)" in one_line(each) and "fails:billing (billing, 402)" in one_line(each)
    assert reenact("images", "--json").rows[0]["config"]["fallbacks"] == ["scripted:fails:billing"]


def test_what_the_command_line_names_is_in_the_place_of_the_images_models() -> None:
    image = ("--image", "bot", "--session", "s")
    reenact("run", "hi", "-m", script(HERE), "--fallback", "scripted:hello", *image)

    for given in (
        ("-m", "scripted:fails:auth", "--fallback", "scripted:fails:billing"),
        ("-m", "scripted:fails:auth"),
        ("--fallback", "scripted:fails:billing"),
    ):
        ended = reenact("run", "hi", *given, "--session", "s")
        named = {each for each in given if each.startswith("scripted:")}
        assert ended.code == 1 and ended.out == "", (given, ended)
        asked = {row["data"]["model"] for row in reenact("events", "--type", "model_called", "--json").rows[1:]}
        assert asked <= named | {"scripted:fails:auth", "scripted:fails:billing"}


def test_a_model_that_is_named_is_the_only_one_asked_also_where_it_is_the_images_own() -> None:
    image = ("--image", "bot", "--session", "s")
    assert reenact("run", "hi", "-m", "scripted:fails:auth", "--fallback", "scripted:hello", *image).code == 0

    assert reenact("run", "hi", "-m", "scripted:fails:auth", "--session", "s").code == 1
    assert reenact("run", "hi", "-m", "scripted:fails:auth", "--image", "bot").code == 1
    assert reenact("run", "hi", "--image", "bot").code == 0


@pytest.mark.parametrize("bad", ["nope", "nowhere:x", ""])
def test_a_fallback_that_there_is_none_of_is_one_line_and_exit_2(bad: str) -> None:
    ended = reenact("run", "hi", "-m", "scripted:hello", "--fallback", bad)

    assert ended.code == 2 and one_line(ended)


def test_a_session_that_fell_back_goes_on_with_the_model_it_was_for(here: Path) -> None:
    reenact("run", "hi", "-m", "scripted:fails:auth", "--fallback", "scripted:echo", "--session", "s")

    assert reenact("run", "hi", "--session", "s").code == 1  # it names no fallback, so its model is the only one


def test_a_process_killed_in_the_middle_of_a_failover_is_gone_on_with_where_it_was(here: Path) -> None:
    slow = script({"text": "Slow.", "delay_ms": 600_000})
    child = process("run", "hi", "-m", "scripted:fails:auth", "--fallback", slow)
    while "model_selected" not in reenact("events", "--type", "model_selected").out:
        assert child.poll() is None, child.communicate()
    child.kill()
    child.communicate()
    script(HERE)

    ended = reenact("resume")

    assert ended.code == 0 and "I am here." in ended.out
    called = [row["data"]["model"] for row in reenact("events", "--type", "model_called", "--json").rows]
    assert called == ["scripted:fails:auth", slow, slow]
    assert reenact("replay", "last").code == 0 and reenact("verify").code == 0


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "not JSON"),
        ('[{"txet": "x"}]', "step 1"),
        ('[{"text": NaN}]', "not JSON"),
        ('{"steps": 3}', "list of steps"),
    ],
)
def test_a_script_that_cannot_be_read_is_one_line_and_exit_2(here: Path, written: str, said: str) -> None:
    (here / "bad.json").write_text(written)

    ended = reenact("run", "hi", "-m", "scripted:bad.json")

    assert ended.code == 2 and said in one_line(ended)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("def (", "bad.py:1: "),
        ("1 / 0", "bad.py:1: ZeroDivisionError"),
        ("x = 1", "no tools"),
        ("from reenact import tool\n@tool\ndef f(x): ...", "bad.py"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_file_of_tools_that_cannot_be_used_is_one_line_and_exit_2(here: Path, written: str, said: str) -> None:
    (here / "bad.py").write_text(written)

    ended = reenact("run", "hi", "-m", "scripted:hello", "--tools", "bad.py")

    assert ended.code == 2 and said in one_line(ended)
    assert not (here / "reenact.db").exists()


def test_invalid_arguments_and_unknown_tools_go_back_to_the_model_and_nothing_is_run(here: Path) -> None:
    model = script(
        {"tool_calls": [{"name": "charge", "input": {"cents": "many"}}, {"name": "steal", "input": {}}]},
        {"text": "I see."},
    )

    ended = reenact("run", "hi", "-m", model, "--tools", "tools.py")

    assert ended == (0, "I see.\n", "")
    results = [row for row in reenact("messages", "last", "--json").rows if row["subtype"] == "tool-result"]
    assert ["cents" in str(results[0]), "steal" in str(results[1])] == [True, True]
    assert not (here / "charged").exists()


def test_calls_with_the_same_id_are_two_calls() -> None:
    twice = [{"name": "look", "id": "same", "input": {"path": path}} for path in "ab"]

    ended = reenact("run", "hi", "-m", script({"tool_calls": twice}, {"text": "Both."}), "--tools", "tools.py")

    assert ended.out == "Both.\n"
    settled = reenact("events", "--type", "tool_settled", "--json").rows
    assert sorted(row["data"]["output"] for row in settled) == ["looked into a", "looked into b"]


# -- sessions, images, models --


def test_every_run_is_a_new_session_of_one_image() -> None:
    for _ in range(3):
        reenact("run", "hi", "-m", "scripted:hello")

    assert reenact("images", "--json").row["sessions"] == 3
    assert {row["jobs"] for row in reenact("sessions", "--json").rows} == {1}


def test_a_named_session_is_made_once_and_opened_then() -> None:
    for text in ("one", "two"):
        reenact("run", text, "-m", "scripted:echo", "--session", "work")

    row = reenact("sessions", "--json").row
    assert (row["name"], row["jobs"]) == ("work", 2)


def test_a_session_is_opened_by_last_by_its_end_and_by_its_beginning() -> None:
    reenact("run", "one", "-m", "scripted:echo")
    session_id = reenact("sessions", "--json").row["sessionId"]

    for word in ("last", session_id, session_id[-8:], session_id[:20], session_id.removeprefix("sess_")[:12]):
        assert reenact("run", "again", "-m", "scripted:echo", "--session", word).code == 0

    assert reenact("sessions", "--json").row["jobs"] == 6


def test_an_id_that_fits_several_sessions_is_refused_with_the_candidates() -> None:
    for name in ("first", "second"):
        reenact("run", "hi", "-m", "scripted:hello", "--session", name)

    for command in (["run", "hi"], ["messages"], ["replay"], ["export"]):
        option = ["--session", "sess_0"] if command[0] == "run" else ["sess_0"]
        ended = reenact(*command, *option)
        said = one_line(ended)
        assert ended.code == 2 and "(first)" in said and "(second)" in said


def test_an_unknown_id_is_one_line_and_exit_1_and_makes_no_session() -> None:
    reenact("run", "hi", "-m", "scripted:hello")

    ended = reenact("run", "hi", "-m", "scripted:hello", "--session", "sess_ffff")

    assert ended.code == 1 and "no session" in one_line(ended)
    assert len(reenact("sessions", "--all", "--json").rows) == 1


def test_a_session_goes_on_with_the_model_it_last_had() -> None:
    reenact("run", "one", "-m", "scripted:echo", "--session", "s")
    reenact("run", "two", "-m", "scripted:hello")

    assert reenact("run", "three", "--session", "s").out == "three\n"


def test_a_new_image_keeps_the_model_and_an_old_one_does_not_take_another() -> None:
    reenact("run", "one", "--image", "parrot", "-m", "scripted:echo")
    reenact("run", "two", "--image", "parrot", "-m", "scripted:hello")

    assert reenact("run", "three", "--image", "parrot").out == "three\n"
    assert reenact("images", "--json").row["model"] == "scripted:echo"


def test_a_session_is_not_opened_as_one_of_another_image() -> None:
    reenact("run", "one", "--image", "parrot", "-m", "scripted:echo", "--session", "s")

    ended = reenact("run", "two", "--image", "owl", "--session", "s")

    assert ended.code == 2 and "'parrot'" in one_line(ended)


def test_instructions_without_an_image_are_of_this_conversation_alone() -> None:
    reenact("run", "one", "-m", "scripted:echo", "--system", "Speak like a pirate.")
    reenact("run", "two", "-m", "scripted:echo")

    prompts = [row["config"]["systemPrompt"] for row in reenact("images", "--json").rows]
    assert sorted(prompts) == ["", "Speak like a pirate."]


def test_the_environment_chooses_the_model_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REENACT_MODEL", "scripted:echo")

    assert reenact("run", "said") == (0, "said\n", "")


def test_provider_and_model_make_one_name() -> None:
    assert reenact("run", "said", "-p", "scripted", "-m", "echo").out == "said\n"
    assert reenact("run", "said", "-p", "scripted", "-m", "scripted:echo").out == "said\n"
    assert reenact("run", "said", "-p", "scripted").out.startswith("Hello!")


def test_settings_of_a_run_are_recorded_with_it() -> None:
    reenact("run", "hi", "-m", "scripted:hello", "--max-tokens", "7", "--temperature", "0.5", "--thinking", "low")

    called = reenact("events", "--type", "model_called", "--json").row
    params = {name: value for name, value in called["data"]["params"].items() if value is not None}
    assert params == {"maxTokens": 7, "temperature": 0.5, "thinking": "low"}


# -- chat --


def test_lines_of_a_pipe_are_said_one_after_the_other() -> None:
    ended = reenact("chat", "-m", "scripted:echo", stdin="one\n\n  two\r\n/exit\nnever\n")

    assert ended == (0, "one\n  two\n", "")
    assert reenact("sessions", "--json").row["jobs"] == 2


def test_a_chat_goes_on_behind_a_line_that_fails_and_says_so_in_the_end() -> None:
    ended = reenact("chat", "-m", "scripted:echo", stdin="one\na\0b\ntwo\n")

    assert (ended.code, ended.out) == (1, "one\ntwo\n")
    assert "U+0000" in ended.err and ended.err.count("\n") == 1


# -- files that are no logs, and files that are owned --


def _truncate(path: Path) -> None:
    reenact("run", "hi", "-m", "scripted:hello")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for beside in ("-wal", "-shm"):
        Path(str(path) + beside).unlink(missing_ok=True)


def _foreign(path: Path) -> None:
    import sqlite3

    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_text("Dear diary, today I wrote no database."), id="no database"),
        pytest.param(_foreign, id="another program's"),
        pytest.param(_truncate, id="truncated"),
        pytest.param(lambda path: path.mkdir(), id="a folder"),
    ],
)
@pytest.mark.parametrize("command", [("run", "hi"), ("ps",), ("messages", "last"), ("resume",), ("sql", "SELECT 1")])
def test_what_is_no_log_is_one_line_and_is_left_as_it_was(here: Path, spoil: object, command: tuple[str, ...]) -> None:
    path = here / "reenact.db"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None

    ended = reenact(*command)

    assert ended.code == 1 and "reenact.db" in one_line(ended)
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize("command", [("run", "hi"), ("ps",)])
def test_a_folder_that_is_not_there_is_one_line(command: tuple[str, ...]) -> None:
    ended = reenact(*command, "--db", "sqlite:///no/such/folder/x.db")

    assert ended.code == 1 and "does not exist" in one_line(ended)


def test_while_a_process_owns_the_log_others_read_it_and_are_refused_to_work_in_one_line(here: Path) -> None:
    killed = script({"tool_calls": [{"name": "charge", "input": {"cents": 1}}]}, {"text": "Done."})
    (here / "wait").touch()
    child = process("run", "Charge it", "-m", killed, "--tools", "tools.py", "--session", "s")
    wait_for(here / "inside", child)

    for command in (["run", "hi", "-m", "scripted:hello"], ["chat"], ["resume"]):
        ended = reenact(*command, stdin="")
        assert ended.code == 1 and str(child.pid) in one_line(ended)
    assert reenact("ps", "--json").row["state"] == "running"
    assert reenact("messages", "s").code == 0 and reenact("replay", "s").code == 0
    assert reenact("sql", "SELECT count(*) AS n FROM events", "--json").row["n"] > 10

    (here / "wait").unlink()
    out, err = child.communicate()
    assert (child.returncode, out, err) == (0, "Done.\n", "")


def test_a_disk_that_is_full_in_the_middle_of_a_turn_is_one_line_and_the_work_stays(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reenact.adapters.logs.sqlite import SqliteLog
    from reenact.events.errors import DiskFull

    commit = SqliteLog.commit

    def full(self: SqliteLog, transactions: Sequence[Transaction]) -> list[Result]:
        if any(batch.head.asked == "answer_model" for each in transactions for batch in each.batches):
            raise DiskFull("There is no room left.")
        return commit(self, transactions)

    monkeypatch.setattr(SqliteLog, "commit", full)
    ended = reenact("run", "said", "-m", "scripted:echo")
    assert ended.code == 1 and one_line(ended) == "There is no room left."
    ended = reenact("resume")
    assert ended.code == 1 and one_line(ended) == "There is no room left."

    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert reenact("resume") == (0, "said\n", "")


# -- resume --


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


# -- Ctrl-C --


def test_ctrl_c_stops_the_turn_and_keeps_what_was_said(here: Path) -> None:
    model = script({"text": "One " + "and on " * 300, "delay_ms": 60_000})
    child = process("run", "Count", "-m", model, "--json")
    assert child.stdout is not None
    while json.loads(child.stdout.readline())["type"] != "text_delta":
        pass
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()

    assert child.returncode == 130 and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["type"] == "job_cancelled"
    row = reenact("ps", "--all", "--json").row
    assert (row["state"], row["reason"]) == ("cancelled", "user_interrupt")
    assert "One" in reenact("messages", "last").out


def hanging(here: Path) -> str:
    """A model with a tool, in `hang.py`, that does not stop when it is asked to."""
    model = script({"tool_calls": [{"name": "hang", "input": {}}]}, {"text": "Done."})
    (here / "hang.py").write_text(
        "import asyncio\nfrom pathlib import Path\nfrom reenact import tool\n"
        "@tool(effect='read')\nasync def hang() -> str:\n"
        "    'Hang, whoever asks it to stop.'\n"
        "    if Path('free').exists():\n        return 'free'\n"
        "    Path('inside').touch()\n"
        "    while True:\n"
        "        try:\n            await asyncio.sleep(60)\n"
        "        except asyncio.CancelledError:\n            Path('asked').touch()\n"
    )
    return model


def test_a_second_ctrl_c_quits_and_the_work_stays_in_the_log(here: Path) -> None:
    model = hanging(here)
    child = process("run", "hi", "-m", model, "--tools", "hang.py", "--session", "s")
    wait_for(here / "inside", child)
    child.send_signal(signal.SIGINT)
    wait_for(here / "asked", child)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()

    assert (child.returncode, out) == (130, "") and "Traceback" not in err, err
    (here / "free").touch()
    assert reenact("resume", "s").code in (0, 1)
    assert reenact("ps", "--json").out == "", "nothing is left behind"


def test_a_second_ctrl_c_is_raised_where_events_are_read_and_a_third_anywhere() -> None:
    """Where a signal comes in the middle of a finalizer, what is raised by its handler is lost there."""
    done: list[str] = []
    with stopping(lambda: done.append("stop"), lambda: None, lambda: not done.append("quit")) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert (done, stop.asked, stop.quits) == (["stop", "quit"], True, True)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with stopping(lambda: None, lambda: None):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_quits_a_resume_too(here: Path) -> None:
    model = hanging(here)
    child = process("run", "hi", "-m", model, "--tools", "hang.py", "--session", "s")
    wait_for(here / "inside", child)
    child.kill()
    child.communicate()
    (here / "inside").unlink()
    child = process("resume", "s")
    wait_for(here / "inside", child)
    child.send_signal(signal.SIGINT)
    wait_for(here / "asked", child)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert (child.returncode, out) == (130, "") and "Traceback" not in err, err


# -- a terminal --


def test_on_a_terminal_the_text_and_a_line_a_tool_are_shown(here: Path) -> None:
    model = script(
        {"text": "Let me look.", "tool_calls": [{"name": "look", "input": {"path": "a"}}]}, {"text": "It says a."}
    )

    ended = reenact("run", "What?", "-m", model, "--tools", "tools.py", terminal=True)

    assert ended.code == 0
    assert ended.out == "Let me look.\nIt says a.\n"
    assert 'look(path="a") → looked into a' in ESCAPES.sub("", ended.err)


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = reenact("ps", "--bogus", terminal=True).err
    monkeypatch.setenv("NO_COLOR", "1")
    plain = reenact("ps", "--bogus", terminal=True).err

    assert "\x1b[31m" in coloured and "\x1b[" not in plain


def test_what_a_model_says_cannot_move_the_cursor_of_a_terminal() -> None:
    evil = "a\x1b[2J\x1b]0;title\x07b\rc\u202ed"

    shown = reenact("run", evil, "-m", "scripted:echo", terminal=True)
    listed = reenact("ps", "--all", terminal=True)
    read = reenact("messages", "last", terminal=True)

    for text in (shown.out, ESCAPES.sub("", listed.out), read.out):
        assert not set(text) & {"\x1b", "\x07", "\r", "\u202e"}
    assert reenact("run", evil, "-m", "scripted:echo").out == evil + "\n", "into a pipe goes what was said"


def test_a_reader_that_goes_away_is_no_failure(here: Path) -> None:
    reenact("run", "hi", "-m", "scripted:hello")
    read, write = os.pipe()
    os.close(read)
    child = subprocess.Popen(
        [sys.executable, "-m", "reenact", "events", "--json"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)

    assert child.communicate()[1] == "" and child.returncode == 0


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


def test_columns_of_one_name_are_told_apart(here: Path) -> None:
    reenact("run", "said", "-m", "scripted:echo")
    assert reenact("sql", "select 1 as a, 2 as a", "--json").out == '{"a":1,"a_2":2}\n'


def test_what_a_tool_prints_is_no_line_of_json(here: Path) -> None:
    (here / "loud.py").write_text(
        "from reenact import tool\nprint('NOISE')\n@tool(effect='read')\ndef loud() -> str:\n"
        "    'Say it.'\n    print('NOISE')\n    return 'quiet'\n"
    )
    ended = reenact("run", "loud {}", "-m", "scripted:tools", "--tools", "loud.py", "--json")
    assert ended.code == 0 and "NOISE" not in ended.out and "NOISE" in ended.err


@pytest.mark.parametrize(("stop_reason", "says"), [("max_tokens", "cut off"), ("refusal", "refused")])
def test_an_answer_that_is_not_whole_says_so_into_a_pipe_too(here: Path, stop_reason: str, says: str) -> None:
    (here / "script.json").write_text(json.dumps([{"text": "part", "stop_reason": stop_reason}]))
    ended = reenact("run", "hi", "-m", "scripted:script.json")
    assert (ended.code, ended.out) == (0, "part\n") and says in ended.err


def test_a_prompt_that_no_model_takes_leaves_no_session_behind(here: Path) -> None:
    ended = reenact("run", "-", "-m", "scripted:echo", stdin="a\0b")
    assert ended.code == 2 and "U+0000" in one_line(ended)
    assert not (here / "reenact.db").exists(), "nor a log"
