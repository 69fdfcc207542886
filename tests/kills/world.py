"""The world of a kill test: one log, what was done outside, and one process after the other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.kills.child import CLASSES
from tests.kills.processes import Processes


class World:
    """One log and what was done outside."""

    def __init__(
        self, processes: Processes, template: Path, folder: Path, broken: str | None = None, **always: Any
    ) -> None:
        self.processes = processes
        self.always = always
        self.calls: list[str] = always.get("calls") or list(CLASSES)
        self.folder = folder / "world"
        self.broken = broken
        shutil.copytree(template, self.folder)

    def run(self, role: str, **case: Any) -> dict[str, Any]:
        return self.processes.run(self.folder, role, broken=self.broken, **self.always, **case)

    def lines(self, file: str) -> list[str]:
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    def resumed(self) -> dict[str, Any]:
        # A broken build may wait for ever; whoever waits for it need not.
        ended = self.run("resume", patience_s=0.5 if self.broken else 60, limit_s=150)
        assert ended["code"] == 0, ended
        said: dict[str, Any] = ended["said"]
        return said


def alone(processes: Processes, template: Path, folder: Path, broken: str | None = None, **always: Any) -> World:
    """A world whose processes commit on their event loop, as they do while one session is at work: its turns have one
    call. Failpoints are those of such commits alone."""
    return World(processes, template, folder, broken, threads=None, on_loop=True, **{"calls": ["pay"], **always})
