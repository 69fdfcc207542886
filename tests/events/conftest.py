"""What the tests of the bus get."""

from collections.abc import Iterator

import pytest

from reenact.events.bus import SystemBus


@pytest.fixture
def bus() -> Iterator[SystemBus]:
    bus = SystemBus()
    yield bus
    bus.dispose()
