"""Ctrl-C: the first stops the turn, the second quits, and the work stays in the log."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from reenact.adapters.cli.stop import stopping
from tests.adapters.cli.processes import kill, process, wait_for
from tests.adapters.cli.terminal import reenact
from tests.adapters.cli.work import script


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


def interrupted_twice(here: Path, child: subprocess.Popen[str]) -> tuple[str, str]:
    """What it printed, when Ctrl-C came while its tool ran and once more while it hung."""
    wait_for(here / "inside", child)
    child.send_signal(signal.SIGINT)
    wait_for(here / "asked", child)
    child.send_signal(signal.SIGINT)
    return child.communicate()


def test_a_second_ctrl_c_quits_and_the_work_stays_in_the_log(here: Path) -> None:
    model = hanging(here)
    child = process("run", "hi", "-m", model, "--tools", "hang.py", "--session", "s")
    out, err = interrupted_twice(here, child)

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
    kill(child)
    (here / "inside").unlink()
    child = process("resume", "s")
    out, err = interrupted_twice(here, child)
    assert (child.returncode, out) == (130, "") and "Traceback" not in err, err
