"""What may be asked of the tables: one SELECT over them and nothing else, with a bound, while they catch up."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from reenact.events.errors import BadQuery
from reenact.projections import duck
from reenact.projections.duck import DuckProjection
from tests.projections.stories import Growing, stories


@pytest.fixture(scope="module")
def tables() -> DuckProjection:
    tables = DuckProjection(memory_limit="200MB")
    tables.catch_up(stories())
    return tables


def test_a_query_gives_columns_and_rows(tables: DuckProjection) -> None:
    answer = tables.sql("SELECT model, sum(amount) AS usd FROM ledger_calls WHERE failure IS NULL GROUP BY model")
    assert (answer.columns, answer.rows) == (("model", "usd"), [("test-1", Decimal("0.30"))])
    assert tables.sql("SELECT ? + 1", [1]).rows == [(2,)]
    assert tables.sql("SELECT $more || 'b'", {"more": "a"}).rows == [("ab",)]
    short, long = tables.sql("FROM jobs;").rows, tables.sql("SELECT * FROM jobs -- all of them").rows
    assert short and sorted(map(repr, short)) == sorted(map(repr, long))


def test_times_are_utc_with_or_without_a_zone(tables: DuckProjection) -> None:
    plain = tables.sql("SELECT min(ts) AS first, 7 AS seven, 'a' AS seven FROM events")
    zoned = tables.sql("SELECT min(ts)::TIMESTAMPTZ AS first, 7 AS seven, 'a' AS seven FROM events; -- zoned")
    assert zoned.rows == plain.rows
    assert zoned.columns[:2] == ("first", "seven")
    assert isinstance(tables.sql("SELECT now()").rows[0][0], datetime)


@pytest.mark.parametrize(
    "query",
    [
        "",
        ";",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELEC 1",
        "SELECT 'open",
        "SELECT * FROM no_such_table",
        "SELECT no_such_column FROM events",
        "SELECT 1::INTEGER / 'x'::INTEGER",
        "SELECT $1",
        "INSERT INTO facts (position) VALUES (1)",
        "WITH x AS (INSERT INTO facts (position) VALUES (99) RETURNING 1) SELECT * FROM x",
        "DELETE FROM facts",
        "UPDATE reenact_progress SET position = 0",
        "DROP TABLE facts",
        "CREATE TABLE mine (a INTEGER)",
        "CREATE TEMP TABLE mine AS SELECT 1",
        "COPY facts TO '/tmp/reenact-leak.csv'",
        "EXPORT DATABASE '/tmp/reenact-leak'",
        "ATTACH '/tmp/reenact-leak.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '1TB'",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CHECKPOINT",
        "VACUUM",
        "BEGIN",
        "PREPARE x AS SELECT 1",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "SELECT * FROM sqlite_scan('/tmp/x.db', 'events')",
        "SELECT getenv('HOME')",
        "SELECT * FROM query('DROP TABLE facts')",
        "SELECT * FROM stories",
        "\0",
        "SELECT '\ud800'",
    ],
)
def test_whatever_is_not_one_select_over_the_tables_is_refused_in_one_line(tables: DuckProjection, query: str) -> None:
    before = tables.digest()
    with pytest.raises(BadQuery) as raised:
        tables.sql(query)
    assert str(raised.value) and "\n" not in str(raised.value)
    assert tables.digest() == before
    assert not list(Path("/tmp").glob("reenact-leak*"))
    assert tables.sql("SELECT count(*) > 0 FROM events").rows == [(True,)]


@pytest.mark.parametrize(
    "query", ["SELECT count(*) FROM range(10000000000) a, range(1000000) b", "SELECT pg_sleep(60)"]
)
def test_a_query_that_takes_too_long_is_stopped(tables: DuckProjection, query: str) -> None:
    began = time.monotonic()
    with pytest.raises(BadQuery, match=r"longer than 0\.3 s"):
        tables.sql(query, timeout_s=0.3)
    assert time.monotonic() - began < 10
    assert tables.sql("SELECT 1").rows == [(1,)]


def test_a_query_that_wants_too_much_memory_is_refused(tables: DuckProjection) -> None:
    with pytest.raises(BadQuery, match="Out of Memory"):
        tables.sql(
            "SELECT max(x) FROM (SELECT DISTINCT repeat('x', 100) || range AS x FROM range(100000000))", timeout_s=60
        )


def test_an_answer_has_a_bound_and_says_when_it_was_met(
    tables: DuckProjection, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, cut = (answer := tables.sql("FROM range(1000)", rows_max=10)).rows, answer.cut
    assert (rows, cut) == ([(number,) for number in range(10)], True)
    assert not tables.sql("FROM range(10)", rows_max=10).cut
    monkeypatch.setattr(duck, "BYTES_MAX", 10_000)
    answer = tables.sql("SELECT repeat('x', 1000) FROM range(1000000000)")
    assert answer.cut and len(answer.rows) < 1000


def test_asking_goes_on_while_it_catches_up() -> None:
    log = stories(40)
    growing, stop = Growing(log), threading.Event()
    seen: list[tuple[int, int]] = []
    with DuckProjection() as tables:

        def ask() -> None:
            while not stop.is_set():
                seen.append(tables.sql("SELECT count(*), coalesce(max(position), 0) FROM events").rows[0])

        with ThreadPoolExecutor(1) as thread:
            asking = thread.submit(ask)
            for growing.batches in range(0, 300, 15):
                tables.catch_up(growing, batch_events=10)
            stop.set()
            asking.result()
        assert tables.position == log.position
    assert len(set(seen)) > 1, "it was asked in between"
    assert all(count == position for count, position in seen), "whole transactions, always"
    assert seen == sorted(seen)


def test_nothing_heavy_is_loaded_before_tables_are_opened() -> None:
    code = "import sys, reenact.projections.duck; print('duckdb' in sys.modules, 'pyarrow' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"
