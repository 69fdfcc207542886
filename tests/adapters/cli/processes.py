"""The command line in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def process(*argv: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "reenact", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def owning(program: str) -> subprocess.Popen[str]:
    """A program that owns a log, to be spoken with."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True)


def wait_for(path: Path, child: subprocess.Popen[str]) -> None:
    """Until the file is there. The child's end is the bound."""
    while not path.exists():
        assert child.poll() is None, child.communicate()


def kill(child: subprocess.Popen[str]) -> None:
    """At once, and wait for its end."""
    child.kill()
    child.communicate()
