"""Malformed input: every parser answers with its own kind of error, at once, whatever the bytes are.

Each gets true inputs of its kind with bytes flipped, cut, doubled and spliced, and a corpus of known poison.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact.adapters.hosts import local
from reenact.adapters.logs import path_of
from reenact.adapters.logs import rows as log_rows
from reenact.adapters.models.script import _parsed
from reenact.adapters.models.sse import EventReader
from reenact.events import codec
from reenact.events.assembler import parse_input
from reenact.events.errors import BadInput, Corrupt
from reenact.events.image import ImageConfig
from reenact.events.message import Context
from reenact.requests import config_of, content_of
from tests.conftest import LONG
from tests.faults.logs import TOOLS

COUNT = 100_000 if LONG else 2_000
SEED = int(os.environ.get("REENACT_SEED", "20"))
SLOWEST_S = 1.0  # 50 ms is the aim and is printed; the rest is for busy machines

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


def attacked(parse: Callable[[bytes], object], corpus: list[bytes], typed: tuple[type[Exception], ...]) -> Counter[str]:
    """Feed it the true inputs, the poison and COUNT mutations; only `typed` errors may come out."""
    rng = random.Random(SEED)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for data in corpus:
        parse(data)
    for number in range(COUNT + len(POISON)):
        data = POISON[number] if number < len(POISON) else mutated(rng, corpus)
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
    print(f"seed {SEED}: {sum(outcomes.values())} inputs, slowest {slowest * 1000:.1f} ms, {dict(outcomes)}")
    assert slowest < SLOWEST_S
    assert (outcomes["taken"] > 0 and len(outcomes) > 1) or not typed
    return outcomes


# -- the log


def golden() -> dict[str, list[tuple[int, bytes]]]:
    from tests.events.samples import SAMPLES

    found: dict[str, list[tuple[int, bytes]]] = {}
    for event in SAMPLES:
        row = codec.row(event)
        found.setdefault(row.type, []).append((row.schema, row.data))
    return found


def test_bytes_of_events() -> None:
    events = golden()
    names = sorted(events)

    def parse(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        codec.encode(codec.decode(name, 1, data[1:]))

    corpus = [bytes([names.index(name)]) + data for name, shapes in events.items() for _, data in shapes]
    attacked(parse, corpus, (Corrupt,))


class _Names:
    def type(self, number: int) -> tuple[str, int]:
        return "type", number

    def stream(self, number: int) -> str:
        return "session-1"

    def context(self, number: int) -> Context:
        return Context()

    def key(self, number: int) -> str:
        return "key"

    def writer(self, epoch: int) -> str:
        return "writer"


def test_the_heads_and_rows_of_a_log() -> None:
    from tests.contracts.batches import batch

    heads = [
        log_rows.pack_head(
            batch("s", n, *[b"x"] * (1 + n % 3), owes=("t1",) * (n % 2)).head, count=1, asked=1, context=2, writer="w"
        )
        for n in range(6)
    ]

    def parse(head: bytes) -> None:
        names: Any = _Names()
        for stored in log_rows.batches([(1, 1, 1, 0, 1, 1, None, head, b"data")], names):
            codec.chain(b"", stored.batch.head, [])
            hash(stored.batch.head)

    attacked(parse, heads, (Corrupt,))


# -- what models and people send


def test_arguments_of_tools() -> None:
    corpus = [b'{"city":"Paris"}', b'{"amount":42}', b'{"city":"Z\xc3\xbcrich","more":[1,2.5,null,{"a":true}]}', b"{}"]

    def parse(text: bytes) -> None:
        arguments, invalid = parse_input(text.decode("utf-8", "replace"))
        if invalid is not None:
            raise BadInput(invalid)
        for tool in TOOLS:
            checked = tool.validate(arguments)
            assert isinstance(checked, dict) or checked.message

    attacked(parse, corpus, (BadInput,))


def test_files_of_scripts() -> None:
    corpus = [
        b'[{"text":"hi"}]',
        b'{"steps":[{"tool_calls":[{"name":"look","input":{"city":"Paris"}}]},{"text":"ok"}],"repeat":true}',
    ]
    attacked(lambda text: _parsed("script.json", text), corpus, (BadInput,))


def test_server_sent_events() -> None:
    corpus = [b'event: a\ndata: {"x":1}\n\n', b": c\r\ndata: 1\r\ndata: 2\r\n\r\n", b"id: 1\ndata:\n\ndata: [DONE]\n\n"]
    rng = random.Random(SEED)

    def parse(data: bytes) -> None:
        whole, cut = EventReader(), EventReader()
        at = rng.randrange(len(data) + 1)
        events = [*whole.feed(data), whole.rest()]
        assert events == [*cut.feed(data[:at]), *cut.feed(data[at:]), cut.rest()]

    attacked(parse, corpus, ())


PART = {"type": "text", "text": "hi"}
CONTENTS = [
    b'"hi"',
    msgspec.json.encode([PART, {"type": "image", "mediaType": "image/png", "data": "aGk="}]),
    msgspec.json.encode([{"type": "file", "name": "a.pdf", "url": "https://example.org/a.pdf"}]),
]
CONFIGS = [
    b'{"name":"support","model":"scripted:hello","tools":["look"],"maxSteps":5}',
    b'{"params":{"maxTokens":100,"temperature":0.5},"metadata":{"a":"b"},"workspace":null}',
    b'{"instructions":"Be kind.","thinking":"high","max_tokens":5}',
]


def plain(data: bytes) -> Any:
    """What a program may hand over: any JSON value, else the text itself, surrogates and all."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return data.decode("utf-8", "surrogateescape")


def test_contents_of_messages() -> None:
    attacked(lambda data: content_of(plain(data)), CONTENTS, (BadInput,))


def test_definitions_of_images() -> None:
    attacked(lambda data: config_of(plain(data), ImageConfig()), CONFIGS, (BadInput,))


def test_urls_of_logs() -> None:
    corpus = [b"memory://", b"sqlite:///a.db", b"sqlite:////var/a.db", b"agents.db"]

    def parse(data: bytes) -> None:
        path = path_of(data.decode("utf-8", "surrogateescape"))
        assert path is None or (path and "\0" not in path)

    attacked(parse, corpus, (BadInput,))


# -- the owner's socket


def test_lines_of_the_socket(tmp_path: Path) -> None:
    corpus = [
        b'{"id":1,"type":"image_list","data":{"containerId":"acme"}}\n',
        b'{"type":"x"}\n{"type":"y","data":[1,2]}\n',
        b'{"id":"a","type":"runtime_info","data":null}\n',
    ]
    asked = 0

    async def handler(kind: str, data: Any) -> Any:
        nonlocal asked
        asked += 1
        return {"echo": data}

    server = local.LocalServer(str(tmp_path / "s"), handler)
    loop = asyncio.new_event_loop()

    def parse(data: bytes) -> None:
        for line in local.Lines().feed(data + b"\n"):
            response = loop.run_until_complete(server._answer(line))
            assert msgspec.json.encode(response)
            if response.error is not None:
                raise local._KINDS[response.error.code](response.error.message)

    attacked(parse, corpus, (BadInput,))
    loop.close()
    assert asked > COUNT // 100


# -- and the attack can find something


def test_a_parser_that_trusts_its_input_is_found() -> None:
    def trusting(data: bytes) -> Any:
        try:
            return msgspec.json.decode(data)["name"].upper()
        except msgspec.MsgspecError as error:
            raise BadInput(str(error)) from None

    with pytest.raises((TypeError, KeyError, AttributeError, RecursionError, UnicodeError)) as found:
        attacked(trusting, CONFIGS[:1], (BadInput,))
    assert f"seed {SEED}" in found.value.__notes__[0]
