"""The file of the tables: gone, damaged, of another log, somebody else's, or in use."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from reenact.events.errors import Closed, NoAccess, Owned, ViewFailed
from reenact.events.log import MemoryLog
from reenact.projections.duck import DuckProjection
from tests.histories import History
from tests.projections.logs import log_of
from tests.projections.stories import Growing, digest_of, stories, story


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _head_only(path: Path) -> None:
    os.truncate(path, 10)


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 100)


def _wrong_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(20)
        file.write(os.urandom(4000))


def _older(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE tool_calls SET name = 'as an older release wrote it'")
        connection.execute("UPDATE reenact_progress SET version = '0'")


def _other_columns(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE reenact_progress DROP COLUMN id")


def _rows_gone(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("DELETE FROM facts WHERE position = 3")


def _table_gone(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE tool_calls")


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        _truncate,
        _empty,
        _head_only,
        _garbage,
        _wrong_header,
        _older,
        _other_columns,
        _rows_gone,
        _table_gone,
    ],
)
def test_a_file_that_is_gone_damaged_or_older_is_laid_out_anew(tmp_path: Path, harm: Callable[[Path], Any]) -> None:
    log, path = stories(), tmp_path / "tables.duckdb"
    with DuckProjection(path) as tables:
        tables.catch_up(log)
    harm(path)
    with DuckProjection(path) as tables:
        tables.catch_up(log)
        assert tables.digest() == digest_of(log)


def test_damage_that_only_a_query_finds_is_told_and_mended(tmp_path: Path) -> None:
    """Blocks are read when they are needed. Wherever the damage is, the next catching up has the tables whole."""
    path, log = tmp_path / "tables.duckdb", stories(30)
    with DuckProjection(path) as tables:
        tables.catch_up(log)
    whole, expected = path.read_bytes(), digest_of(log)
    chance = random.Random(7)
    found = 0
    for _ in range(12):
        at = chance.randrange(12_288, len(whole))
        path.write_bytes(whole[:at] + os.urandom(512) + whole[at + 512 :])
        with DuckProjection(path) as tables:
            try:
                tables.sql("SELECT count(DISTINCT hash(f)) FROM facts f")
                tables.sql("SELECT count(DISTINCT hash(f)) FROM ledger_calls f")
            except ViewFailed:
                found += 1
                if found % 2:
                    tables.catch_up(log)
                    assert tables.digest() == expected
                    continue
            else:
                continue
        with DuckProjection(path) as tables:  # closed without mending: the next one begins anew
            tables.catch_up(log)
            assert tables.digest() == expected
    assert found > 1


def test_the_tables_of_another_log_are_laid_out_anew(tmp_path: Path) -> None:
    path = tmp_path / "tables.duckdb"
    one, two = stories(3), log_of(story(7), story(8), story(9), first=7)
    for log in (one, two, one):
        with DuckProjection(path) as tables:
            tables.catch_up(log)
            assert tables.digest() == digest_of(log)


def test_a_log_that_lost_its_end_is_laid_out_anew() -> None:
    log = stories(3)
    with DuckProjection() as tables:
        tables.catch_up(log)
        tables.catch_up(shorter := Growing(log, 8))
        assert tables.digest() == digest_of(shorter)


def test_what_an_erasure_took_is_gone_after_a_rebuild(tmp_path: Path) -> None:
    with DuckProjection(tmp_path / "t.duckdb") as tables:
        tables.catch_up(stories(1))
        tables.rebuild(log_of(History().send("something else")))
        assert tables.sql("SELECT count(*) FROM events WHERE data::VARCHAR LIKE '%Refund%'").rows == [(0,)]
    assert b"Refund order" not in (tmp_path / "t.duckdb").read_bytes()


def test_somebody_elses_file_is_never_thrown_away(tmp_path: Path) -> None:
    theirs, log, notes = tmp_path / "theirs.duckdb", tmp_path / "agents.db", tmp_path / "notes.txt"
    with duckdb.connect(str(theirs)) as connection:
        connection.execute("CREATE TABLE progress (mine INTEGER)")
    log.write_bytes(b"SQLite format 3\0" + b"x" * 4096)
    notes.write_bytes(b"my notes, which I have nowhere else\n" * 10)
    before = theirs.read_bytes(), log.read_bytes(), notes.read_bytes()
    for path in (theirs, log):
        with pytest.raises(ViewFailed):
            DuckProjection(path)
    DuckProjection(notes).close()
    assert (theirs.read_bytes(), log.read_bytes()) == before[:2]
    assert (tmp_path / "notes.txt.damaged").read_bytes() == before[2]


def test_a_file_is_for_one_at_a_time_and_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "tables.duckdb"
    with DuckProjection(path) as tables:
        tables.catch_up(stories(1))
        assert path.stat().st_mode & 0o077 == 0
        with pytest.raises(Owned):
            DuckProjection(path)
        tables.sql(
            "SELECT octet_length(content) FROM read_blob(?)", [str(path)]
        )  # drops DuckDB's own lock, but not ours
        code = (
            "import sys; from reenact.projections.duck import DuckProjection; from reenact.events.errors import Owned\n"
            "try: DuckProjection(sys.argv[1])\nexcept Owned: print('owned')"
        )
        ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert ran.stdout == "owned\n"
    DuckProjection(path).close()


def test_a_folder_that_is_not_there_or_a_folder_for_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoAccess):
        DuckProjection(tmp_path / "nowhere" / "tables.duckdb")
    with pytest.raises(NoAccess):
        DuckProjection(tmp_path)


def test_what_was_closed_says_so() -> None:
    tables = DuckProjection()
    tables.close()
    tables.close()
    for use in (lambda: tables.sql("SELECT 1"), lambda: tables.catch_up(MemoryLog()), tables.digest):
        with pytest.raises(Closed):
            use()
