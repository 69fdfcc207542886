"""On a terminal and into a pipe: text, colours, what a model says to the cursor, and a reader that goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.cli.terminal import ESCAPES, reenact
from tests.adapters.cli.work import script

pytestmark = pytest.mark.usefixtures("tools")


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
