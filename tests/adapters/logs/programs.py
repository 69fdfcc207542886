"""Programs in a process of their own: run to their end, spoken with, stopped and killed."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]


def python(program: str, *arguments: str) -> str:
    """What it says until its end."""
    with_root = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=with_root)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(program: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@contextlib.contextmanager
def running(program: str, *arguments: object, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    child = start(program, *arguments, prefix=prefix)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None and child.stderr is not None
    said = child.stdout.readline().strip()
    assert said, f"the child said nothing: {child.stderr.read()}"
    return said


def dead(child: subprocess.Popen[str]) -> str:
    """Kill it with SIGKILL, and what it had said until then."""
    child.kill()
    return child.communicate()[0]
