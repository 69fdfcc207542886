"""run and chat: what they print, what they leave in the log, and what goes wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reenact.events.codec import TYPES
from tests.adapters.cli.terminal import one_line, reenact
from tests.adapters.cli.work import script

pytestmark = pytest.mark.usefixtures("tools")


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


def test_settings_of_a_run_are_recorded_with_it() -> None:
    reenact("run", "hi", "-m", "scripted:hello", "--max-tokens", "7", "--temperature", "0.5", "--thinking", "low")

    called = reenact("events", "--type", "model_called", "--json").row
    params = {name: value for name, value in called["data"]["params"].items() if value is not None}
    assert params == {"maxTokens": 7, "temperature": 0.5, "thinking": "low"}


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


# -- chat --


def test_lines_of_a_pipe_are_said_one_after_the_other() -> None:
    ended = reenact("chat", "-m", "scripted:echo", stdin="one\n\n  two\r\n/exit\nnever\n")

    assert ended == (0, "one\n  two\n", "")
    assert reenact("sessions", "--json").row["jobs"] == 2


def test_a_chat_goes_on_behind_a_line_that_fails_and_says_so_in_the_end() -> None:
    ended = reenact("chat", "-m", "scripted:echo", stdin="one\na\0b\ntwo\n")

    assert (ended.code, ended.out) == (1, "one\ntwo\n")
    assert "U+0000" in ended.err and ended.err.count("\n") == 1
