"""The attack on a parser: true inputs of its kind, changed, and a corpus of known poison.

Whatever the bytes are, a parser answers with its own kind of error, and at once.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from reenact.events.errors import BadInput
from tests.conftest import LONG

COUNT = 100_000 if LONG else 2_000
SEED = int(os.environ.get("REENACT_SEED", "20"))
SLOWEST_S = 1.0  # 50 ms is the aim and is printed; the rest is for busy machines
COUNTED: list[str] = []


def attacked(
    parse: Callable[[bytes], object],
    corpus: list[bytes],
    typed: tuple[type[Exception], ...],
    twist: Callable[[random.Random], bytes] | None = None,
) -> Counter[str]:
    """Feed it the true inputs, the poison and COUNT mutations; only `typed` errors may come out.

    twist: gives one that is well-formed and wrong; every other input is one of those.
    """
    rng = random.Random(SEED)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for data in corpus:
        parse(data)
    for number in range(COUNT + len(POISON)):
        if number < len(POISON):
            data = POISON[number]
        else:
            data = twist(rng) if twist is not None and number % 2 else mutated(rng, corpus)
        began = time.perf_counter()
        try:
            parse(data)
            outcomes["taken"] += 1
        except typed as error:
            outcomes[type(error).__name__] += 1
        except BaseException as error:
            error.add_note(f"seed {SEED}, input {number}: {data[:300]!r}")
            raise
        slowest = max(slowest, time.perf_counter() - began)
    COUNTED.append(f"seed {SEED}: {sum(outcomes.values())} inputs, slowest {slowest * 1000:.1f} ms, {dict(outcomes)}")
    assert slowest < SLOWEST_S
    assert (outcomes["taken"] > 0 and len(outcomes) > 1) or not typed
    return outcomes


def mutated(rng: random.Random, corpus: list[bytes]) -> bytes:
    """One of the true inputs, changed in one to four places."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 5:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        else:
            other = rng.choice(corpus) if rng.random() < 0.9 else rng.choice(POISON)
            data[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data)


POISON = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b"\x91" * 100_000,
    b"\x81\xa1a" * 50_000,
    b"1" * 4300,
    b"1" * 50_000,
    b"1e400",
    b"-1e-400",
    b"NaN",
    b"Infinity",
    b'{"a":1,"a":2}',
    b'"\\ud800"',
    b'{"\\ud800":1}',
    b'"\\u0000"',
    '"\u202e\u2028"'.encode(),
    b"\r\n\r\n",
    b"\xed\xa0\x80",
    b"\xdf\xff\xff\xff\xff" + b"x" * 10,
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"true",
    b"null",
)


def twisted(rng: random.Random, value: Any) -> Any:
    """A value that is JSON with one thing in it, somewhere, replaced by what nobody expects there."""
    if rng.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return rng.choice(ODD)
    if isinstance(value, dict):
        name = rng.choice(list(value))
        if rng.random() < 0.2:
            return {key: each for key, each in value.items() if key != name}
        return value | {name: twisted(rng, value[name])}
    at = rng.randrange(len(value))
    return [*value[:at], *([] if rng.random() < 0.2 else [twisted(rng, value[at])]), *value[at + 1 :]]


ODD = (None, True, 0, -1, 1.5, 2**53, 2**70, "", "x", "\ud800", "\0", [], {}, [[]], [None], {"": None}, {"type": 7})


def plain_bytes(rng: random.Random, bodies: list[Any]) -> bytes:
    return json.dumps(twisted(rng, rng.choice(bodies))).encode()


def plain(data: bytes) -> Any:
    """What a program may hand over: any JSON value, else the text itself, surrogates and all."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return data.decode("utf-8", "surrogateescape")


def finds(attack: Callable[[], object]) -> None:
    """Of a build that trusts its input the attack finds what nobody meant, and says how to come by it again."""
    with pytest.raises(BaseException) as found:
        attack()
    assert f"seed {SEED}" in found.value.__notes__[0], found.value
    assert not isinstance(found.value, BadInput)
