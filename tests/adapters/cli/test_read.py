"""The commands that read: rows as JSON and as tables, beside an owner or without one, and never a file of their own."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from reenact.blocking import Runtime
from reenact.events.codec import TYPES
from tests.adapters.cli.terminal import ESCAPES, one_line, reenact


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two sessions: a named one with two jobs, and one that failed."""
    path = tmp_path_factory.mktemp("made") / "reenact.db"
    for command in (
        ["first things", "-m", "scripted:echo", "--session", "talk"],
        ["second things", "-m", "scripted:echo", "--session", "talk"],
        ["hi", "-m", "anthropic:claude-sonnet-5-5"],
    ):
        reenact("run", *command, "--db", f"sqlite:///{path}")
    return path


@pytest.fixture
def spoken(here: Path, made: Path) -> Path:
    """A copy of it in the folder of the test."""
    shutil.copy(made, here / "reenact.db")
    return here


READING = [
    ("ps",),
    ("images",),
    ("sessions",),
    ("messages", "last"),
    ("events",),
    ("replay", "last"),
    ("cost",),
    ("audit",),
    ("sql", "SELECT 1"),
    ("export", "last"),
]


@pytest.mark.parametrize("command", READING)
def test_a_log_that_is_not_there_is_one_line_and_no_file_is_made(here: Path, command: tuple[str, ...]) -> None:
    ended = reenact(*command, "--db", "sqlite:///nowhere.db")

    assert ended.code == 1 and "nowhere.db" in one_line(ended)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", READING)
def test_with_json_every_line_is_an_object(spoken: Path, command: tuple[str, ...]) -> None:
    ended = reenact(*command, "--json")

    assert ended.code == 0 and ended.err == ""
    assert all(isinstance(row, dict) for row in ended.rows)


@pytest.mark.parametrize("command", READING)
def test_reading_changes_nothing_in_the_log(spoken: Path, command: tuple[str, ...]) -> None:
    before = (spoken / "reenact.db").read_bytes()

    reenact(*command)

    assert (spoken / "reenact.db").read_bytes() == before


@pytest.mark.parametrize("command", [("messages", "zz"), ("replay", "zz"), ("export", "zz"), ("ps", "--session", "zz")])
def test_an_unknown_session_is_one_line(spoken: Path, command: tuple[str, ...]) -> None:
    ended = reenact(*command)

    assert ended.code == 1 and "no session 'zz'" in one_line(ended)


def test_there_is_no_last_session_in_a_log_without_one(here: Path) -> None:
    with Runtime("sqlite:///reenact.db") as runtime:
        runtime.wait(runtime.asynchronous.create_container("empty"))

    ended = reenact("messages", "last")

    assert ended.code == 1 and "no session yet" in one_line(ended)


def test_ps_lists_what_runs_and_with_all_what_is_over(spoken: Path) -> None:
    assert reenact("ps", "--json").rows == []
    assert "no job runs or waits" in reenact("ps").err

    assert [row["state"] for row in reenact("ps", "--all", "--json").rows] == ["failed", "succeeded", "succeeded"]
    assert [row["title"] for row in reenact("ps", "-a", "--session", "talk", "--json").rows] == [
        "second things",
        "first things",
    ]


def test_ids_in_tables_are_ends_that_are_taken_again(spoken: Path) -> None:
    line = next(line for line in reenact("sessions").out.splitlines() if "talk" in line)

    assert reenact("messages", line.split()[0]).out == reenact("messages", "talk").out


def test_sessions_in_which_nothing_was_said_are_left_out_unless_asked_for(spoken: Path) -> None:
    assert {row["name"] for row in reenact("sessions", "--json").rows} == {"talk", None}
    assert len(reenact("sessions", "--all", "--json").rows) >= 2


def test_images_show_their_model_and_how_many_sessions_they_have(spoken: Path) -> None:
    row = reenact("images", "--json").row

    assert (row["name"], row["version"], row["config"]["maxSteps"]) == ("assistant", 1, 50)
    assert row["model"] == "scripted:echo"


def test_messages_are_read_by_people_and_by_programs(spoken: Path) -> None:
    lines = reenact("messages", "talk").out.splitlines()
    rows = reenact("messages", "talk", "--json").rows

    assert [line.split(None, 1)[1] for line in lines[1:]] == [
        "you        first things",
        "assistant  first things",
        "you        second things",
        "assistant  second things",
    ]
    assert [(row["type"], row["role"], row["content"][0]["text"]) for row in rows[:2]] == [
        ("user_message", "user", "first things"),
        ("assistant_message", "assistant", "first things"),
    ]


# -- events --


def test_events_are_paged_by_position(spoken: Path) -> None:
    whole = reenact("events", "--json").rows
    paged, after = [], 0
    while page := reenact("events", "--json", "--after", str(after), "--limit", "7").rows:
        paged += page
        after = page[-1]["position"]

    assert paged == whole and [row["position"] for row in whole] == list(range(1, len(whole) + 1))


def test_events_are_chosen_by_session_and_by_type(spoken: Path) -> None:
    queued = reenact("events", "--type", "job_queued,job_succeeded", "--session", "talk", "--json").rows

    assert [row["type"] for row in queued] == ["job_queued", "job_succeeded"] * 2
    assert {row["sessionId"] for row in queued} == {reenact("events", "-s", "talk", "--json").rows[0]["sessionId"]}
    ended = reenact("events", "--type", "job_qeued")
    assert ended.code == 2 and "'job_qeued'" in one_line(ended)


def test_every_type_of_event_has_words_for_people() -> None:
    from reenact.adapters.cli.words import about
    from tests.events.samples import SAMPLES

    assert {sample.type for sample in SAMPLES} >= set(TYPES)
    assert [sample.type for sample in SAMPLES if not isinstance(about(sample), str)] == []


def test_events_of_money_are_told_in_amounts_and_not_in_raw_fields() -> None:
    from reenact.adapters.cli.words import about
    from reenact.events.budget import Amount, Breach, Budget, Grant
    from reenact.events.ledger import Allotted, BudgetSet, UsageRecorded
    from reenact.events.purse import AllotmentTaken, AllotmentWanted, BudgetExceeded, BudgetReserved

    some, more = Amount(tokens=1500, requests=1), Amount(3000, 2_500_000, 2, 8)
    breach = Breach(limit="max_cost", of="run", used=10**9, wanted=5 * 10**8, most=10**9)
    session = "sess_" + "0" * 24 + "1234abcd"
    told = [
        BudgetReserved(call="m1", tokens=1500, cost=2_500_000, max_tokens=64),
        BudgetExceeded(breach=breach, call="m1"),
        AllotmentWanted(ask="w1", ledger="acme", spent=some, want=more, least=some),
        AllotmentTaken(ask="w1", grant=Grant(amount=more)),
        Allotted(
            session_id=session,
            principal_id="ann",
            ask="w1",
            spent=some,
            want=more,
            least=some,
            at=1,
            priced=True,
            grant=Grant(amount=some),
        ),
        BudgetSet(budget=Budget(principal_id="ann", max_cost_daily="2.50", max_tokens_total=5000), at=1),
        UsageRecorded(entry="e", kind="tool_usage", at=1, tool="look", cost="0.5", principal_id="ann"),
    ]
    assert [about(event) for event in told] == [
        "m1 $0.0025 + 1,500 tokens",
        "m1 max_cost of the run is $1: $1 used or set aside, $0.5 more wanted.",
        "w1 $0.0025 + 3,000 tokens + 2 requests + 8 tool calls of acme, at least 1,500 tokens + 1 requests",
        "w1 $0.0025 + 3,000 tokens + 2 requests + 8 tool calls",
        "1,500 tokens + 1 requests for 1234abcd w1, by ann",
        "principal ann: max_tokens_total 5,000, max_cost_daily $2.5, deny",
        "tool_usage look 0 tokens $0.5 by ann",
    ]


def test_a_follower_hears_what_is_appended_later(spoken: Path) -> None:
    before = len(reenact("events", "--json").rows)
    heard: list[list[dict[str, object]]] = []

    def follow() -> None:
        heard.append(reenact("events", "--follow", "--after", str(before), "--limit", "3", "--json").rows)

    follower = threading.Thread(target=follow)
    follower.start()
    with Runtime("sqlite:///reenact.db") as runtime:
        runtime.image("late", model="scripted:hello").send("hi").result()
        follower.join(20)

    (rows,) = heard
    assert [row["position"] for row in rows] == [before + 1, before + 2, before + 3]


# -- replay, export --


def test_replay_is_one_line_with_the_verdict(spoken: Path) -> None:
    row = reenact("replay", "talk", "--json").row

    assert row.pop("session_id").startswith("sess_")
    assert row == {"identical": True, "events": reenact("sessions", "--json").rows[1]["events"], "network_calls": 0}
    assert reenact("replay", "talk").out.startswith("identical: ")


def test_a_log_that_was_changed_behind_its_back_is_found_and_is_exit_1(spoken: Path) -> None:
    import sqlite3

    with sqlite3.connect(spoken / "reenact.db") as db:
        changed = db.execute(
            "UPDATE events SET data = CAST(replace(data, CAST('first things' AS BLOB), CAST('worst things' AS BLOB))"
            " AS BLOB) WHERE instr(data, CAST('first things' AS BLOB)) AND position < 15"
        ).rowcount
    db.close()
    assert changed, "the test found nothing to change"

    ended = reenact("replay", "talk", "--json")

    assert ended.code == 1
    row = ended.row
    assert row["identical"] is False and row["first_difference"]["kind"] == "chain"
    assert reenact("replay", "talk").out.startswith("differs at position ")


def test_an_export_is_a_header_and_every_event_with_its_envelope(spoken: Path) -> None:
    header, *lines = reenact("export", "talk").rows
    events = reenact("events", "--session", "talk", "--json").rows

    assert (header["type"], header["format"]) == ("reenact_export", 1)
    assert [(line["position"], line["id"], line["type"], line["data"]) for line in lines] == [
        (event["position"], event["id"], event["type"], event["data"]) for event in events
    ]
    assert all(line["chain"] and line["digest"] and line["writer"] for line in lines)
    assert [line["version"] for line in lines] == list(range(1, len(lines) + 1))


def test_an_export_goes_into_a_file_whole_or_not_at_all(spoken: Path) -> None:
    ended = reenact("export", "talk", "-o", "talk.ndjson")

    assert ended.out == "" and "talk.ndjson" in ended.err
    assert (spoken / "talk.ndjson").read_text() == reenact("export", "talk").out

    ended = reenact("export", "talk", "-o", "no/such/folder/talk.ndjson")
    assert ended.code == 2 and "talk.ndjson" in one_line(ended)


def test_an_export_can_be_read_back_to_the_same_bytes(spoken: Path) -> None:
    """Lossless: the data, encoded again, has the digest that was exported beside it."""
    import msgspec

    from reenact.events import codec
    from reenact.events.message import show_digest

    for line in reenact("export", "talk").rows[1:]:
        event = msgspec.convert(line["data"], TYPES[line["type"]])
        assert show_digest(codec.row_digest(codec.row(event))) == line["digest"]


# -- money, audit, SQL --


def test_cost_is_added_up_by_every_group(spoken: Path) -> None:
    by_model = {f"{row['provider']}:{row['model']}": row for row in reenact("cost", "--json").rows}
    assert by_model["scripted:echo"]["calls"] == 2 and by_model["scripted:echo"]["amount"] == "0"
    for group in ("day", "session", "image", "container", "scope", "job", "provider"):
        rows = reenact("cost", "--by", group, "--json").rows
        assert sum(row["calls"] for row in rows) == sum(row["calls"] for row in by_model.values())
        assert reenact("cost", "--by", group).code == 0
    assert "no tool was called" in reenact("cost", "--by", "tool").err


def test_the_audit_is_filtered(spoken: Path) -> None:
    everything = reenact("audit", "--json").rows
    assert [row["position"] for row in everything] == list(range(1, len(everything) + 1))

    failed = reenact("audit", "--status", "failure", "--json").rows
    assert failed and {row["status"] for row in failed} == {"failure"}
    one = reenact("audit", "--type", "cost.tracked", "--session", "talk", "--limit", "1", "--json").row
    assert one["type"] == "cost.tracked"
    chain = reenact("audit", "--correlation", one["correlationId"], "--json").rows
    assert len(chain) > 3 and one in chain
    assert reenact("audit", "--until", "1h", "--json").rows == []
    assert len(reenact("audit", "--since", "1h", "--user", "user", "--json").rows) == len(everything)
    assert reenact("audit", "--user", "nobody").code == 0


@pytest.mark.parametrize("time", ["yesterday", "9999999999999d", "-1h", "2026-13-01", ""])
def test_a_time_that_is_none_is_one_line(spoken: Path, time: str) -> None:
    ended = reenact("audit", f"--since={time}")

    assert ended.code == 2 and one_line(ended)


def test_sql_reads_the_log_and_nothing_else(spoken: Path) -> None:
    assert reenact("sql", "SELECT count(*) AS n FROM jobs", "--json").row == {"n": 3}
    assert "job_queued" in reenact("sql", "SELECT DISTINCT type FROM events ORDER BY 1").out
    for query in ("DROP TABLE facts", "SELEC", "SELECT 1; SELECT 2", "SELECT * FROM read_text('/etc/hostname')", ""):
        ended = reenact("sql", query)
        assert ended.code == 2 and one_line(ended)


def test_columns_of_one_name_are_told_apart(here: Path) -> None:
    reenact("run", "said", "-m", "scripted:echo")
    assert reenact("sql", "select 1 as a, 2 as a", "--json").out == '{"a":1,"a_2":2}\n'


def test_what_sql_keeps_beside_the_log_is_for_this_user_alone_and_may_be_deleted(spoken: Path) -> None:
    reenact("sql", "SELECT 1")
    kept = spoken / "reenact.db.duckdb"
    assert kept.stat().st_mode & 0o077 == 0

    kept.unlink()
    assert reenact("sql", "SELECT count(*) AS n FROM jobs", "--json").row == {"n": 3}
    kept.write_bytes(b"no tables at all")
    assert reenact("sql", "SELECT count(*) AS n FROM jobs", "--json").row == {"n": 3}


def test_sql_works_where_no_file_can_be_made_beside_the_log(spoken: Path) -> None:
    (spoken / "reenact.db.duckdb.lock").mkdir()

    assert reenact("sql", "SELECT count(*) AS n FROM jobs", "--json").row == {"n": 3}


# -- doctor --


def test_the_doctor_finds_what_there_is_and_shows_no_key(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")

    ended = reenact("doctor", "--json")

    found = {row["check"]: row["found"] for row in ended.rows}
    assert ended.code == 0 and "sk-secret" not in ended.out
    assert found["anthropic"] == "a key is set" and found["openai"] == "no OPENAI_API_KEY"
    assert "events, epoch" in found["log"] and found["owner"] == "none now"
    assert reenact("doctor").out.count("\n") == len(found)


def test_the_doctor_names_the_owner(spoken: Path) -> None:
    import os

    with Runtime("sqlite:///reenact.db"):
        found = {row["check"]: row["found"] for row in reenact("doctor", "--json").rows}

    assert found["owner"].startswith(f"process {os.getpid()}")


def test_the_doctor_says_what_is_wrong_with_a_log_and_exits_1(here: Path) -> None:
    (here / "reenact.db").write_text("Dear diary, today I wrote no database.")

    ended = reenact("doctor", "--json")

    bad = [row for row in ended.rows if not row["ok"]]
    assert ended.code == 1 and [row["check"] for row in bad] == ["log"]
    assert (here / "reenact.db").read_text().startswith("Dear diary")


def test_a_log_that_is_not_there_yet_is_no_illness(here: Path) -> None:
    assert reenact("doctor").code == 0
    assert list(here.iterdir()) == []


# -- tables --


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_tables_fit_the_terminal_and_keep_their_ids(
    spoken: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    reenact("run", "a title that goes on and on and on and on and on and on and on", "-m", "scripted:hello")
    session = reenact("sessions", "--json").rows[0]["sessionId"][-8:]

    shown = [ESCAPES.sub("", line) for line in reenact("sessions", terminal=True).out.splitlines()]

    assert max(map(len, shown)) <= columns
    assert shown[1].startswith(session)


def test_rows_of_sql_that_do_not_fit_stand_below_each_other(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    shown = reenact("sql", "SELECT * FROM jobs LIMIT 1", terminal=True).out

    assert max(map(len, shown.splitlines())) <= 80
    assert [line.split()[0] for line in shown.splitlines()[:2]] == ["job_id", "session_id"]


def test_a_table_in_a_pipe_is_whole(spoken: Path) -> None:
    title = "x" * 70
    reenact("run", title, "-m", "scripted:hello")

    assert title in reenact("sessions").out and json.loads(reenact("sessions", "--json").out.splitlines()[0])
