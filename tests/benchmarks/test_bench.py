"""Every benchmark runs here with tiny numbers, so that none can rot; what it computed is the same every time."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks import (
    bench_idle,
    bench_policy,
    bench_replay,
    bench_sessions,
    bench_start,
    bench_stream,
    bench_tables,
    bench_tools_disk,
    bench_turn,
)
from benchmarks import floor as floor_
from benchmarks.harness import ROOT, median_of, turns


@pytest.mark.parametrize("watched", ["all", "stored", "none"])
def test_a_turn_is_measured_and_what_it_computed_is_always_the_same(watched: str) -> None:
    first = bench_turn.durable(turns=3, watched=watched)
    again = bench_turn.durable(turns=3, watched=watched)

    assert first["digest"] == again["digest"]
    assert first["turns"] == 3 and first["turns_s"] > 0 and first["disk"] > 0


def test_streaming_the_answer_changes_what_watchers_see_and_not_what_is_stored() -> None:
    plain, streamed = bench_turn.durable(turns=2), bench_turn.durable(turns=2, streamed=True)

    assert plain["digest"] == streamed["digest"]
    assert streamed["told_turn"] > plain["told_turn"]


def test_many_sessions_are_measured() -> None:
    found = bench_sessions.many(sessions=4, turns=2)

    assert found["turns"] == 8
    assert found["digest"] == bench_sessions.many(sessions=4, turns=2, in_memory=True)["digest"]


def test_the_same_turns_are_decided_and_committed_with_nobody_told() -> None:
    found = bench_sessions.decided(sessions=3, turns=2)

    assert found["turns"] == 6
    assert found["events_turn"] == bench_sessions.many(sessions=3, turns=2)["events_turn"]


def test_the_floor_writes_and_reads_back_what_it_says() -> None:
    assert floor_.durable(turns=2)["digest"] == floor_.handed_over(turns=2)["digest"]
    assert floor_.many(sessions=3, turns=2)["turns"] == 6


def test_a_cold_start_finds_every_message() -> None:
    found = bench_start.cold(messages=8)

    assert found["messages"] == 8
    assert 0 < found["ready_ms"] < found["asked_ms"]


def test_an_import_is_measured_in_a_process_of_its_own() -> None:
    assert bench_start.imported(statement="import reenact")["wall_ms"] > 0


@pytest.mark.parametrize("views", [False, True])
def test_every_delta_reaches_every_subscriber(views: bool) -> None:
    found = bench_stream.deltas(words=50, subscribers=3, views=views)

    assert found["deliveries_s"] > found["events_s"] > 0


def test_idle_actors_are_awake_with_their_state() -> None:
    found = bench_idle.idle(actors=1050)
    some_asleep = bench_idle.idle(actors=1050, awake=100)

    assert (found["awake"], some_asleep["awake"]) == (1050, 100)
    assert found["digest"] == some_asleep["digest"]


def test_a_replay_re_drives_every_event() -> None:
    assert bench_replay.redriven(turns=3)["events"] == 2 + 3 * 13 + 1


def test_the_tables_take_over_every_event() -> None:
    found = bench_tables.caught_up(turns=4, sessions=2)

    assert found["events"] > 4 * 13 and found["events_s"] > 0


def test_the_disk_that_calls_take_is_more_than_what_they_gave() -> None:
    found = bench_tools_disk.calls(calls=3)

    assert found["disk"] > 3 * 2048


def test_rules_are_asked_and_a_turn_under_them_is_the_same_turn() -> None:
    found = bench_policy.checks(calls=200)

    assert 0 < found["known_us"] < found["made_us"]
    assert found["digest"] == bench_policy.checks(calls=100)["digest"]
    assert bench_turn.durable(turns=2)["digest"] == bench_turn.durable(turns=2, governed=False)["digest"]
    assert bench_turn.durable(turns=2)["digest"] == bench_turn.durable(turns=2, limited=True)["digest"]


def test_what_is_counted_in_instructions_is_the_same_work_every_time() -> None:
    assert bench_turn.counted(turns=2)["digest"] == bench_turn.counted(turns=2, governed=False, limited=True)["digest"]


def test_a_benchmark_is_a_program_that_prints_one_line() -> None:
    argv = [sys.executable, "-m", "benchmarks.floor", "durable", '{"turns": 1}']
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["turns"] == 1


def test_a_question_that_is_not_asked_is_wrong_usage() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks"), "speed"], capture_output=True, text=True)

    assert done.returncode == 2 and "no question 'speed'" in done.stderr


def test_a_figure_is_a_line_with_its_goal_and_whether_it_holds() -> None:
    argv = [sys.executable, str(ROOT / "benchmarks"), "--quick", "--json", "tools_disk"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)

    line = json.loads(done.stdout.splitlines()[0])
    assert list(line) == ["name", "ours", "unit", "peer", "theirs", "ratio", "goal", "holds"]
    assert done.returncode == (0 if line["holds"] else 1)


def test_the_median_is_of_each_number_and_what_is_no_number_must_agree() -> None:
    assert median_of([{"a": 1.0, "d": "x"}, {"a": 3.0, "d": "x"}, {"a": 2.0, "d": "x"}]) == {"a": 2.0, "d": "x"}
    assert median_of([{"d": "x"}, {"d": "y"}]) == {"d": ["x", "y"]}


def test_turns_are_told_by_where_they_stand_in_the_conversation() -> None:
    found = turns([0.001] * 12)

    assert round(found["turns_s"]) == 1000
    assert set(found["curve"]) == {10, 12}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The benchmarks silence the log of their process, which here is everybody's."""
    log = logging.getLogger("reenact")
    level = log.level
    yield
    log.setLevel(level)
