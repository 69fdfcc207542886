"""Malformed input: every parser answers with its own kind of error, at once, whatever the bytes are.

Each gets true inputs of its kind with bytes flipped, cut, doubled and spliced, and a corpus of known poison.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact import context as execution
from reenact import failover_file
from reenact.actors import question
from reenact.actors.question import check_resolution
from reenact.actors.verify import verify
from reenact.adapters import plain_file, prices
from reenact.adapters.cli import answers
from reenact.adapters.cli.answers import Given, resolution_of
from reenact.adapters.hosts import local
from reenact.adapters.hosts.caller import PERSON, Caller
from reenact.adapters.logs import path_of
from reenact.adapters.logs import rows as log_rows
from reenact.adapters.logs.names import _context
from reenact.adapters.logs.owner import lock_path, owner_of
from reenact.adapters.models.anthropic_answer import Reader
from reenact.adapters.models.openai_chat_answer import ChatReading
from reenact.adapters.models.openai_host import DONE, Reply
from reenact.adapters.models.openai_responses_answer import ResponsesReading
from reenact.adapters.models.script import _parsed
from reenact.adapters.models.sse import EventReader
from reenact.adapters.policy_file import load_policy, parse_policy, policy_of
from reenact.context import ExecutionContext
from reenact.events import codec, history
from reenact.events.action import ActionResolved
from reenact.events.assembler import parse_input
from reenact.events.budget import budget_of
from reenact.events.content import Usage
from reenact.events.errors import BadInput, BadPolicy, BadResolution, Corrupt
from reenact.events.image import ImageConfig, ImageUpdated
from reenact.events.ledger import BudgetSet
from reenact.events.log import MemoryLog
from reenact.events.message import Context
from reenact.events.model import ModelFailure
from reenact.given import config_of, content_of
from tests.conftest import LONG, Figure
from tests.faults.logs import TOOLS

COUNT = 100_000 if LONG else 2_000
SEED = int(os.environ.get("REENACT_SEED", "20"))
SLOWEST_S = 1.0  # 50 ms is the aim and is printed; the rest is for busy machines

COUNTED: list[str] = []


@pytest.fixture(autouse=True)
def counted(figure: Figure) -> Iterator[None]:
    COUNTED.clear()
    yield
    for text in COUNTED:
        figure(text)


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


def test_the_contexts_of_a_log() -> None:
    corpus = [b"{}", msgspec.json.encode(Context(scope="acme", principal="somebody", session_id="sess_1"))]
    attacked(lambda text: _context(text.decode("utf-8", "surrogateescape")), corpus, (Corrupt,))


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


POLICIES = [
    b'name = "a"\nprofile = "coding"\nallow = ["read", "group:fs"]\ndeny = ["exec"]\nmax_tool_calls_per_turn = 3\n',
    b'[profiles]\nshop = ["refund"]\n[[tools]]\ntool_patterns = ["pay_*"]\ndecision = "deny"\nreason = "No."\n',
    b'[[models]]\nmodel_patterns = ["gpt-*"]\nrequire_approval = true\nmax_tokens_per_request = 10\n'
    b"[[constraints]]\nmax_cost_per_request = 0.5\nmax_turns = 3\n",
]
POLICY_TABLES = [
    b'{"name":"a","alsoAllow":["x"],"rules":[{"kind":"tool","toolPatterns":["*"],"allowedScopes":["acme"]}]}',
    b'{"rules":[{"kind":"constraint","maxCostPerRequest":"0.5"}],"profiles":{"shop":["refund"]},"strict":true}',
]


def test_files_of_policies() -> None:
    attacked(lambda text: parse_policy(text, "policy.toml"), POLICIES, (BadPolicy,))


def test_policies_as_plain_data() -> None:
    def parse(data: bytes) -> None:
        policy = policy_of(plain(data))
        codec.encode(ImageUpdated(version=1, updated_at=1, config=ImageConfig(policy=policy)))

    attacked(parse, POLICY_TABLES, (BadPolicy,))


def test_urls_of_logs() -> None:
    corpus = [b"memory://", b"sqlite:///a.db", b"sqlite:////var/a.db", b"agents.db"]

    def parse(data: bytes) -> None:
        path = path_of(data.decode("utf-8", "surrogateescape"))
        assert path is None or (path and "\0" not in path)

    attacked(parse, corpus, (BadInput,))


# -- files of a user's, what stands for whom, and what people answer

PRICES = {"x:a": {"input": "3", "output": 15.5}, "y:b": {"input": 1, "output": 2, "cache_read": 0.1}}
BUDGET = {"max_cost_total": "2.50", "maxTokensDaily": 1000, "on_breach": "deny", "principal_id": "ann"}
SETTINGS = {"timeout_s": 120, "keyOrder": "given", "stop_on": ["auth"], "cooldowns": {"transient_s": [10, 60]}}
FILES: dict[str, tuple[Any, bytes]] = {
    "prices": (PRICES, b'["x:a"]\ninput = 3\noutput = "15"\n["y:b"]\ninput = 1.5\noutput = 2\ncache_read = 0.1\n'),
    "budget": (BUDGET, b'max_cost_total = "2.50"\nmax_tokens_daily = 1000\nprincipal_id = "ann"\n'),
    "failover": (SETTINGS, b'timeout_s = 120\nstop_on = ["auth"]\n[cooldowns]\ntransient_s = [10, 60]\n'),
}


def reading(what: str, path: Path) -> Callable[[bytes], None]:
    """The parser of a kind of file, as the command line goes about it."""

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        if what == "prices":
            cost = prices.table_of(str(path))(Usage(input_tokens=10**9, cache_read_tokens=7), "a", "x", 0)
            assert cost.amount is None or Decimal(cost.amount) >= 0
        elif what == "budget":
            codec.row(BudgetSet(budget=budget_of(plain_file.object_in(str(path), "an object")), at=0))
        else:
            assert failover_file.failover_in(str(path)).timeout_s is not None

    return parse


@pytest.mark.parametrize("form", ["json", "toml"])
@pytest.mark.parametrize("what", FILES)
def test_files_of_a_user(what: str, form: str, tmp_path: Path) -> None:
    plainly, toml = FILES[what]
    parse = reading(what, tmp_path / f"file.{form}")
    if form == "json":
        attacked(parse, [json.dumps(plainly).encode()], (BadInput,), lambda rng: plain_bytes(rng, [plainly]))
    else:
        attacked(parse, [toml], (BadInput,))


def test_policies_read_from_files(tmp_path: Path) -> None:
    def parse(data: bytes) -> None:
        (tmp_path / "policy.toml").write_bytes(data)
        load_policy(tmp_path / "policy.toml")

    attacked(parse, POLICIES, (BadPolicy,))


CONTEXTS: list[Any] = [
    {"scope_id": "acme", "principal_id": "ann", "trace_id": "a" * 32, "span_id": "b" * 16, "metadata": {"a": [1]}},
    {"budgets": {"max_cost": "2"}, "policy_ref": {"name": "strict"}, "versions": {}, "job_id": None},
]


def understood(data: bytes) -> None:
    context = ExecutionContext.from_dict(plain(data))
    assert ExecutionContext.from_dict(context.to_dict()) == context
    assert len(context.traceparent) == 55 and msgspec.json.encode(context.to_dict())


def test_contexts() -> None:
    attacked(understood, list(map(msgspec.json.encode, CONTEXTS)), (BadInput,), lambda rng: plain_bytes(rng, CONTEXTS))


ANSWERS: dict[Any, tuple[dict[str, Any], Any]] = {
    "confirm": ({}, {"approved": True, "comment": "fine"}),
    "choose": ({"options": ["red", "blue"], "multiple": True}, {"choices": ["red"]}),
    "input": ({"min_length": 1}, {"text": "words"}),
    "upload": ({}, {"files": [{"name": "a", "mediaType": "text/plain", "bytes": 2, "digest": "d", "data": "aGk="}]}),
    "reauth": ({"secret": "shop"}, {"authenticated": True, "secret": "shop"}),
    "apply_changes": ({"changes": [1, 2]}, {"approved": True, "changes": [0]}),
    "custom": ({}, {"any": {"thing": [1]}}),
}


def answered(data: bytes) -> None:
    """A whole answer as a person or a program gives it; the first byte says to what, the rest is the answer."""
    kind = list(ANSWERS)[(data[0] if data else 0) % len(ANSWERS)]
    payload, _ = ANSWERS[kind]
    text = data[1:].decode("utf-8", "surrogateescape")
    row = {"type": kind, "payload": payload, "reason": "", "call": None}
    given = resolution_of(row, Given(resolution=text), lambda: text)
    check_resolution(kind, payload, given)
    codec.row(ActionResolved(action="a1", resolution=given, at=0, by="ann"))


def test_answers_of_people() -> None:
    whole = [bytes([n]) + json.dumps(answer).encode() for n, (_, answer) in enumerate(ANSWERS.values())]

    def twist(rng: random.Random) -> bytes:
        number = rng.randrange(len(ANSWERS))
        return bytes([number]) + plain_bytes(rng, [list(ANSWERS.values())[number][1]])

    attacked(answered, whole, (BadInput, BadResolution), twist)


def test_what_people_type_for_an_answer() -> None:
    def parse(data: bytes) -> None:
        kind = list(ANSWERS)[(data[0] if data else 0) % len(ANSWERS)]
        payload, _ = ANSWERS[kind]
        text = data[1:].decode("utf-8", "surrogateescape")
        row = {"type": kind, "payload": payload, "reason": "", "call": None}
        given = Given(**{"input": {"text": text}, "choose": {"choose": (text,)}}.get(kind, {"file": (text,)}))
        check_resolution(kind, payload, resolution_of(row, given, lambda: text))

    attacked(parse, [b"\2words", b"\1red", b"\1blue"], (BadInput, BadResolution))


# -- what models answer


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def chunk(delta: Any, finish: str | None = None, **more: Any) -> Any:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


CHAT = [
    [
        chunk({"role": "assistant", "content": "Hel"}),
        chunk({"content": "lo", "reasoning_content": "hm"}),
        chunk({}, "stop", usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}),
    ],
    [
        chunk({"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": {"name": "look"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":"Rome"}'}}]}),
        chunk({}, "tool_calls"),
    ],
    [chunk({"content": "no"}), {"error": {"message": "overloaded", "type": "server_error", "code": 503}}],
]
_ITEM = {"type": "message", "id": "m1", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}
_CALL = {"type": "function_call", "id": "f1", "call_id": "t1", "name": "look", "arguments": '{"city":"Rome"}'}
_THOUGHT = {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "hm"}]}
_USAGE = {"input_tokens": 3, "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 1}}


def responses(*items: Any, status: str = "completed") -> list[Any]:
    events: list[Any] = [{"type": "response.created", "response": {"id": "resp_1", "model": "m"}}]
    for index, item in enumerate(items):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        events.append({"type": "response.output_text.delta", "item_id": item["id"], "content_index": 0, "delta": "He"})
        events.append({"type": "response.function_call_arguments.delta", "item_id": item["id"], "delta": "{"})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    last = {"id": "resp_1", "model": "m", "status": status, "output": list(items), "usage": _USAGE}
    return [*events, {"type": f"response.{status}", "response": last}]


RESPONSES = [responses(_THOUGHT, _ITEM), responses(_CALL), responses(_ITEM, status="incomplete")]


def twisting(streams: list[list[Any]]) -> Callable[[random.Random], bytes]:
    def twist(rng: random.Random) -> bytes:
        events = list(rng.choice(streams))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(events))
            events[at] = twisted(rng, events[at])
        return sse(*events)

    return twist


def test_answers_of_anthropic(root: Path) -> None:
    corpus = [file.read_bytes() for file in sorted((root / "tests/adapters/models/fixtures/anthropic").glob("*.sse"))]
    streams = [[json.loads(data) for _, data in EventReader().feed(text)] for text in corpus]

    def parse(data: bytes) -> None:
        reader, events = Reader({"look": "look"}), EventReader()
        for _, text in events.feed(data):
            reader.take(text)
        if (rest := events.rest()) is not None:
            reader.take(rest[1], last=True)
        reader.answer()

    attacked(parse, corpus, (ModelFailure,), twisting(streams))
    bodies = [{"id": "m", "model": "m", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"}]

    def whole(data: bytes) -> None:
        reader = Reader({})
        reader.whole(data, status=200, kind="application/json")
        reader.answer()

    attacked(whole, [json.dumps(b).encode() for b in bodies], (ModelFailure,), lambda rng: plain_bytes(rng, bodies))


def plain_bytes(rng: random.Random, bodies: list[Any]) -> bytes:
    return json.dumps(twisted(rng, rng.choice(bodies))).encode()


@pytest.mark.parametrize(
    ("make", "streams"),
    [
        (lambda: ChatReading("api.openai.com"), [[*stream, "DONE"] for stream in CHAT[:2]]),
        (lambda: ResponsesReading("api.openai.com"), RESPONSES),
    ],
    ids=["chat", "responses"],
)
def test_answers_of_openai(make: Callable[[], Any], streams: list[list[Any]]) -> None:
    def parse(data: bytes) -> None:
        reading, reader = make(), EventReader()
        for name, text in [*reader.feed(data), *filter(None, [reader.rest()])]:
            event = ("", DONE) if text == b'"DONE"' else Reply._decoded(None, name, text)  # type: ignore[arg-type]
            reading.event(*event)
            if reading.done:
                break
        if hasattr(reading, "end"):
            reading.end()
        reading.answer()
        reading.partial()

    attacked(parse, [sse(*stream) for stream in streams], (ModelFailure,), twisting([*streams, CHAT[2]]))


# -- what processes write for each other


def test_histories_of_logs() -> None:
    corpus = [
        history.line(history.Began(1, "process 7")),
        history.line(history.Handed(1, 1, ((history.Piece("a" * 32, "container-a", 0, 1, "00"),),)))
        + history.line(history.Answered(1, 1, ((1,),)))
        + history.line(history.Raised(1, 2, "disk_full", False)),
    ]

    def parse(data: bytes) -> None:
        verify(MemoryLog(), history=history.entries(data.splitlines(keepends=True)))

    attacked(parse, corpus, (BadInput,))


def test_what_a_lock_file_says(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    corpus = [b'{"pid":7,"writer":"process 7","socket":null}', b'{"pid":7,"socket":"/run/some.sock"}']

    said: Counter[str] = Counter()

    def parse(data: bytes) -> None:
        Path(lock_path(str(path))).write_bytes(data)
        owner = owner_of(str(path))
        assert owner is None or (type(owner.pid) is int and isinstance(owner.socket, str | None)), owner
        said["nothing" if owner is None else "an owner"] += 1

    attacked(parse, corpus, ())
    assert said["an owner"] > len(corpus) and said["nothing"] > 0, said


# -- the owner's socket


def test_lines_of_the_socket(tmp_path: Path) -> None:
    corpus = [
        b'{"id":1,"type":"image_list","data":{"containerId":"acme"}}\n',
        b'{"type":"x"}\n{"type":"y","data":[1,2]}\n',
        b'{"id":"a","type":"runtime_info","data":null}\n',
    ]
    asked = 0

    async def handler(kind: str, data: Any, caller: Caller) -> Any:
        nonlocal asked
        asked += 1
        return {"echo": data}

    server = local.LocalServer(str(tmp_path / "s"), handler)
    loop = asyncio.new_event_loop()

    def parse(data: bytes) -> None:
        for line in local.Lines().feed(data + b"\n"):
            response = loop.run_until_complete(server._answer(line, Caller(None, PERSON)))
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


def trusting_reader(path: str, wanted: str) -> Any:
    return json.loads(Path(path).read_bytes())


def trusting_table(given: Any, place: str, kind: Any) -> dict[str, Any]:
    names = {form: each.name for each in msgspec.structs.fields(kind) for form in (each.name, each.encode_name)}
    return {names[key]: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


BROKEN: dict[str, tuple[object, str, Any]] = {
    "prices": (prices, "object_in", trusting_reader),
    "budget": (plain_file, "object_in", trusting_reader),
    "failover": (failover_file, "object_in", trusting_reader),
    "prices: an amount": (prices, "checked_dollars", lambda name, value: str(Decimal(value))),
    "failover: a key": (failover_file, "_table", trusting_table),
    "contexts": (execution, "checked_text", lambda value, name: value.strip()),
    "answers": (answers, "read_object", lambda text, what: json.loads(text)),
    "answers: a choice": (question, "_check_choice", lambda payload, given: given["choices"][0].strip()),
}


@pytest.mark.parametrize("build", BROKEN)
def test_each_of_them_that_trusts_its_input_is_found(
    build: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, broken = BROKEN[build]
    monkeypatch.setattr(where, name, broken)
    if name.startswith("_check"):
        monkeypatch.setitem(question._CHECKS, "choose", broken)
    what = build.partition(":")[0]
    with pytest.raises(BaseException) as found:
        if what == "contexts":
            test_contexts()
        elif what == "answers":
            test_answers_of_people()
        else:
            test_files_of_a_user(what, "json", tmp_path)
    assert f"seed {SEED}" in found.value.__notes__[0], found.value
    assert not isinstance(found.value, BadInput)
