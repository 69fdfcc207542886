"""What the tests of logs get: a file's path, and the log in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reenact.adapters.logs.sqlite import SqliteLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(path)
    yield log
    log.close()
