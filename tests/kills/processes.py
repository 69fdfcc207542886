"""The processes of a kill test, and how each of them ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

KILLED = -9
"""How a process ended that was killed."""


class Processes:
    """The fork server."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.kills.server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )
        assert self._server.stdout is not None and self._server.stdout.readline() == "ready\n"
        self._cases = 0

    def run(self, folder: Path, role: str, **case: Any) -> dict[str, Any]:
        self._cases += 1
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(
            json.dumps({"folder": str(folder), "role": role, "number": self._cases, **case}) + "\n"
        )
        self._server.stdin.flush()
        ended: dict[str, Any] = json.loads(self._server.stdout.readline())
        return ended

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        assert self._server.wait(30) == 0
