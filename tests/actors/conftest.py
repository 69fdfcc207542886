"""What the tests of lanes and of the actor system get."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.actors.office import Office


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change places every 10 microseconds, not every 5 milliseconds: races come out."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def office() -> Iterator[Office]:
    office = Office()
    yield office
    office.system.close()
