"""The fork server of a file of tests, and a world for each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kills.processes import Processes
from tests.kills.world import World


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    if sys.platform == "win32":
        pytest.skip("no fork and no SIGKILL here")
    processes = Processes()
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def template(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which an image waits for its first message."""
    folder = tmp_path_factory.mktemp("template")
    assert processes.run(folder, "prepare")["code"] == 0
    return folder


@pytest.fixture
def world(processes: Processes, template: Path, tmp_path: Path) -> World:
    return World(processes, template, tmp_path)
