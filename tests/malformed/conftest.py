"""What the tests of malformed input get."""

from collections.abc import Iterator

import pytest

from tests.conftest import Figure
from tests.malformed.attack import COUNTED


@pytest.fixture(autouse=True)
def counted(figure: Figure) -> Iterator[None]:
    COUNTED.clear()
    yield
    for text in COUNTED:
        figure(text)
