"""A file that an earlier release of the format began: read as it is, and gone on with."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from reenact.adapters.logs.reader import SqliteReader
from reenact.adapters.logs.rows import FORMAT, TABLES, VIEW
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.message import Context
from tests.contracts.batches import batch, one

TEXTS_1 = "CREATE TABLE texts (number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"
HEADS = 4
"""Batches in the file."""


def _packed_1(text: str | None) -> Any:
    """An id as format 1 had it: hex digits by themselves, or with what stands around them."""
    if text is None or ("-" not in text and "_" not in text):
        return text if text is None else bytes.fromhex(text)
    before, between, behind = text.partition("_") if "_" in text else ("", "", text)
    digits, dash, part = behind.partition("-")
    return [before + between, bytes.fromhex(digits), dash + part]


def _earlier(path: Path) -> list[Any]:
    """A file of format 1 with batches in it; what lies there, as it should be read."""
    today = path.with_name("today.db")
    log = SqliteLog(today, writer="somebody")
    for number in range(HEADS):
        log.commit([one("session-a", number)])
    batches = log.read_all()
    log.close()
    new, old = sqlite3.connect(today), sqlite3.connect(path, isolation_level=None)
    for statement in ({**TABLES, "texts": TEXTS_1}).values():
        old.execute(statement)
    old.execute(VIEW)
    for table in TABLES:
        rows = new.execute(f"SELECT * FROM {table}").fetchall()
        if rows:
            old.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    for stored in batches:
        head = stored.batch.head
        (now,) = old.execute("SELECT head FROM events WHERE position = ?", (stored.position,)).fetchone()
        fields = msgspec.msgpack.decode(now)
        fields[1:3] = bytes.fromhex(head.id), head.at
        fields[4] = _packed_1(head.cause)
        fields[7] = _packed_1(head.job)
        then = msgspec.msgpack.encode(fields)
        assert len(then) > len(now)
        old.execute("UPDATE events SET head = ? WHERE position = ?", (then, stored.position))
    (application,) = new.execute("PRAGMA application_id").fetchone()
    old.execute(f"PRAGMA application_id = {application}")
    old.execute("PRAGMA user_version = 1")
    new.close()
    old.close()
    return batches


def test_a_file_of_format_1_is_read_as_it_was_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    before = _earlier(path)
    reader = SqliteReader(path)
    assert reader.read_all() == before and reader.flaws() == []
    reader.close()
    log = SqliteLog(path, writer="somebody")
    (results,) = log.commit([one("session-a", HEADS)])
    assert not isinstance(results, Exception)
    assert [stored.batch for stored in log.read("session-a")] == [batch("session-a", n, b"data") for n in range(5)]
    log.close()
    file = sqlite3.connect(path)
    assert file.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    texts = [text for (text,) in file.execute("SELECT text FROM texts")]
    assert len(texts) == len(set(texts))
    file.close()


def test_a_context_is_written_once_a_process_and_again_only_where_many_others_came_since(tmp_path: Path) -> None:
    def contexts() -> int:
        file = sqlite3.connect(tmp_path / "log.db")
        (count,) = file.execute("SELECT count(*) FROM texts WHERE text LIKE '%session-a%'").fetchone()
        file.close()
        return int(count)

    for number in range(3):
        log = SqliteLog(tmp_path / "log.db")
        log.commit([one("session-a", number)])
        log.close()
        assert contexts() == 1
    log = SqliteLog(tmp_path / "log.db")
    log.commit([one(f"session-{number}", 0) for number in range(100)])
    log.close()
    log = SqliteLog(tmp_path / "log.db")
    for number in range(3, 6):
        log.commit([one("session-a", number)])
    assert contexts() == 2
    assert {stored.batch.head.context for stored in log.read("session-a")} == {
        Context(container_id="acme", session_id="session-a")
    }
    log.close()
