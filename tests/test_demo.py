"""The demo: killed at the same place every time, taken up, paid once; and what it says when that is not so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reenact.adapters.cli.show import exit_code
from reenact.cli.commands import Commands
from reenact.cli.demo import Demo
from reenact.events.errors import ReenactError
from tests.adapters.cli.terminal import ESCAPES, one_line, reenact

ONCE = {"read_invoices": 1, "book_payment": 1, "write_report": 1}


def test_the_last_line_sums_up_and_every_line_is_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reenact", "demo", "--json"], capture_output=True, text=True, timeout=60
    )

    *events, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert summary["effects"] == ONCE and summary["resumed"] is True and summary["killed"] is True
    assert summary["replay"] == {"identical": True, "events": summary["events"], "network_calls": 0}
    stored = [event for event in events if "position" in event]
    assert {event["sessionId"] for event in stored} == {summary["session_id"]}
    told = [event["type"] for event in stored if event["type"].startswith("tool_")]
    first = ["tool_requested", "tool_authorised", "tool_started", "tool_settled"]
    first += ["tool_requested", "tool_authorised", "tool_started"]
    second = ["tool_doubted", "tool_settled", "tool_requested", "tool_authorised", "tool_started", "tool_settled"]
    assert told[-len(second) :] == second
    # All of it is in the log, but SIGKILL may come before a process has printed the last that it committed.
    assert told[: -len(second)] == first[: len(told) - len(second)]


def test_into_a_pipe_goes_the_story_without_a_colour() -> None:
    ended = reenact("demo")

    assert ended.code == 0 and ended.err == "" and "\x1b" not in ended.out
    for said in (
        "SIGKILL",
        "paid and unrecorded",
        "tool_doubted",
        "ok by probe",
        "scripted:script.json",
        "identical: ",
    ):
        assert said in ended.out
    assert [line for line in ended.out.splitlines() if line.endswith(" once")] == [f"{name:<16}once" for name in ONCE]


def test_the_folder_may_be_kept_and_every_command_shown_works_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = reenact("demo", "--keep", str(tmp_path / "kept")).out
    monkeypatch.chdir(tmp_path / "kept")

    assert len((tmp_path / "kept" / "bank.jsonl").read_text().splitlines()) == 1
    assert "INV-102" in (tmp_path / "kept" / "report.md").read_text()
    for command in (["messages", "march"], ["cost"], ["replay", "march"]):
        assert "$ reenact " + " ".join(command) in shown
        assert reenact(*command).out in shown


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    ended = reenact("demo", "--keep", str(tmp_path))

    assert ended.code == 2 and "not empty" in one_line(ended)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_keep_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    assert reenact("demo").code == 0
    assert list(tmp_path.iterdir()) == []


def test_it_fits_a_terminal_of_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the commands, which are to be copied. The demo's two processes would write to the real terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(Commands, "demo", lambda self, *, keep, hear, delay_ms: Demo(hear=lambda line: None))

    shown = ESCAPES.sub("", reenact("demo", terminal=True).out)

    assert [line for line in shown.splitlines() if len(line) > 80 and not line.startswith("$ ")] == []


# -- and it can fail --


def _played(demo: Demo) -> dict[str, object]:
    with demo:
        demo.begin()
        demo.go_on()
        return dict(demo.summary())


def test_a_probe_that_lies_pays_twice_and_the_demo_says_so() -> None:
    """The counting is the world's own: where the probe cannot see the booking, the payment is made again."""
    demo = Demo(hear=lambda line: None)
    tools = Path(demo.folder) / "tools.py"
    tools.write_text(tools.read_text().replace('if booking["key"] == key', 'if booking["key"] == "another"'))

    summary = _played(demo)

    assert summary["effects"] == {**ONCE, "book_payment": 2}
    assert exit_code(summary) == 1


def test_a_process_that_is_not_killed_where_it_should_be_is_told_of() -> None:
    demo = Demo(hear=lambda line: None)
    tools = Path(demo.folder) / "tools.py"
    tools.write_text(tools.read_text().replace("    _where_the_demo_kills()\n", ""))

    with demo, pytest.raises(ReenactError, match="ended by itself, with exit code 0"):
        demo.begin()


def test_work_that_is_not_taken_up_is_not_called_resumed() -> None:
    with Demo(hear=lambda line: None) as demo:
        demo.begin()

        assert demo.summary()["resumed"] is False
