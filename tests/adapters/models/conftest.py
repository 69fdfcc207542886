"""The replay server, started once for all tests of the models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.adapters.models import recordings


@pytest.fixture(scope="session")
def replay() -> Iterator[Any]:
    """A running replay server; `replay.url(id, session=…, faults=…)` is the base URL that plays a recording."""
    reason = recordings.missing()
    if reason:
        pytest.skip(reason)
    with recordings.replay_module().ReplayServer([recordings.MATERIAL]) as server:
        yield server
