"""`reenact verify`: a sound log, a damaged one, and what is no log."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.cli.terminal import one_line, reenact
from tests.faults.logs import busy_log, settle


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REENACT_DATABASE_URL", raising=False)
    path = tmp_path / "reenact.db"
    busy_log(path, turns=1)
    settle(path)
    return path


def test_a_sound_log_is_said_to_be_sound(log: Path) -> None:
    ended = reenact("verify")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("sound: ") and ended.out.count("\n") == 1
    row = reenact("verify", "--json").row
    assert row["sound"] and row["violations"] == [] and row["events"] > 40 and row["redriven"] == row["batches"]


def test_damage_is_shown_where_it_is_and_exits_1(log: Path) -> None:
    with closing(sqlite3.connect(log)) as db, db:
        db.execute("UPDATE events SET data = zeroblob(3) WHERE position = 20")
    ended = reenact("verify")
    assert ended.code == 1 and "chain: session-" in ended.out and " in " in ended.out.splitlines()[0]
    row = reenact("verify", "--json").row
    assert not row["sound"] and {"invariant", "what", "stream", "version", "position", "text"} <= set(
        row["violations"][0]
    )


def test_what_is_no_log_is_a_failure_of_one_line(log: Path) -> None:
    assert "no log has been started there" in one_line(reenact("verify", "--db", "other.db"))
