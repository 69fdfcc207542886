"""Failpoints: each name stands in the source once, fires when asked and only then, and costs next to nothing."""

import ast
import os
import signal
import subprocess
import sys
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest

from reenact.events.failpoint import NAMES, VARIABLE, Injected, arm, failpoint


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def test_every_name_stands_in_the_source_once(root: Path) -> None:
    called = []
    for room in ("events", "actors", "adapters", "projections", "reenact"):
        for file in (root / room).rglob("*.py"):
            if "/reenact/" in file.as_posix() and file.parent.name in ("events", "actors", "adapters", "projections"):
                continue
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
                    called.append(ast.literal_eval(node.args[0]))
    assert sorted(called) == sorted(NAMES)


def test_it_fires_the_time_it_was_asked_for_and_once() -> None:
    arm("commit.rows:3:raise,commit.begin:1:eio")
    for _ in range(2):
        failpoint("commit.rows")
    failpoint("commit.executed")
    with pytest.raises(Injected, match=r"commit\.rows"):
        failpoint("commit.rows")
    failpoint("commit.rows")
    with pytest.raises(OSError, match=r"commit\.begin") as raised:
        failpoint("commit.begin")
    assert raised.value.errno == 5
    arm("commit.rows:1:sleep=0")
    failpoint("commit.rows")
    arm("commit.rows:1:raise")
    arm("")
    failpoint("commit.rows")


@pytest.mark.parametrize("text", ["nowhere:1:kill", "signal:0:kill", "signal:x:kill", "signal:1:die", "signal"])
def test_what_cannot_fire_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not name:count"):
        arm(text)


def run(spec: str) -> subprocess.CompletedProcess[str]:
    code = "from reenact.events.failpoint import failpoint\nfailpoint('signal'); print('on'); failpoint('signal')"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | {VARIABLE: spec}, capture_output=True, text=True, timeout=60)


def test_the_environment_arms_it() -> None:
    killed = run("signal:2:kill")
    assert killed.returncode == -signal.SIGKILL and "Error" not in killed.stderr
    misspelt = run("singal:2:kill")
    assert misspelt.returncode == 1 and "is not name:count" in misspelt.stderr


def test_it_costs_next_to_nothing_while_it_is_off() -> None:
    best_s = min(timeit.repeat(lambda: failpoint("signal"), number=20_000, repeat=5)) / 20_000
    print(f"failpoint off: {best_s * 1e9:.0f} ns")
    assert best_s < 1e-6  # 60 ns with the lambda around it; the rest is for busy machines
