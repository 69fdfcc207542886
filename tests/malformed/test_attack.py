"""The attack on a parser finds one that trusts its input."""

from typing import Any

import msgspec
import pytest

from reenact.events.errors import BadInput
from tests.malformed.attack import SEED, attacked

CONFIG = b'{"name":"support","model":"scripted:hello","tools":["look"],"maxSteps":5}'


def test_a_parser_that_trusts_its_input_is_found() -> None:
    def trusting(data: bytes) -> Any:
        try:
            return msgspec.json.decode(data)["name"].upper()
        except msgspec.MsgspecError as error:
            raise BadInput(str(error)) from None

    with pytest.raises((TypeError, KeyError, AttributeError, RecursionError, UnicodeError)) as found:
        attacked(trusting, [CONFIG], (BadInput,))
    assert f"seed {SEED}" in found.value.__notes__[0]
