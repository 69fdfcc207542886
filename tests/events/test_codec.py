"""What is stored stays readable: golden bytes of every event, past shapes, shapes from the future."""

import json
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events import codec
from reenact.events.agent import ToolSettled
from reenact.events.errors import Corrupt
from reenact.events.log import Batch, Stored
from reenact.events.message import Head, Unknown
from reenact.events.session import JobSucceeded
from tests.chains import broken_at
from tests.events.golden import renew
from tests.events.samples import SAMPLES

GOLDEN = Path(__file__).with_name("golden.json")


def test_every_event_type_has_a_sample() -> None:
    assert {sample.type for sample in SAMPLES} == set(codec.TYPES)


def test_every_type_has_one_name_in_the_style_of_the_wire() -> None:
    for name in codec.TYPES:
        assert name == name.lower() and name.isidentifier()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.type)
def test_the_bytes_of_an_event_are_those_that_were_always_stored(sample) -> None:
    """Golden bytes. If this fails, logs that people have would read otherwise: add a schema version and an upcaster.

    A new type gets its line with `python -m tests.events.golden`. A type that only gained fields, each with a default,
    gets another; the bytes of its old shape stay, and are decoded below.
    """
    golden = json.loads(GOLDEN.read_text())
    assert codec.encode(sample).hex() == golden[f"{sample.type} {sample.schema}"]


def test_all_that_was_ever_golden_still_decodes() -> None:
    for line, stored in json.loads(GOLDEN.read_text()).items():
        name, schema, *_ = line.split(" ")
        event = codec.decode(name, int(schema), bytes.fromhex(stored))
        assert event.type == name


def test_a_shape_that_gained_a_field_keeps_the_bytes_of_the_old_one_and_one_that_lost_something_is_refused() -> None:
    sample = next(sample for sample in SAMPLES if sample.type == "turn_started")
    whole = msgspec.msgpack.decode(codec.encode(sample))
    less = {name: value for name, value in whole.items() if name != "jobId"}
    lines = {"turn_started 1": msgspec.msgpack.encode(less).hex()}
    renew(lines)
    assert lines["turn_started 1"] == codec.encode(sample).hex()
    assert lines["turn_started 1 1"] == msgspec.msgpack.encode(less).hex()
    for other in (whole | {"gone": 1}, whole | {"turn": 9}):
        with pytest.raises(SystemExit):
            renew({"turn_started 1": msgspec.msgpack.encode(other).hex()})


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.type)
def test_an_event_comes_back_as_it_went(sample) -> None:
    assert codec.decode(sample.type, sample.schema, codec.encode(sample)) == sample


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.type)
def test_fields_of_a_newer_release_are_ignored(sample) -> None:
    fields = msgspec.msgpack.decode(codec.encode(sample)) | {"fromTheFuture": {"a": [1]}}
    assert codec.decode(sample.type, sample.schema, msgspec.msgpack.encode(fields)) == sample


def test_a_type_of_the_future_is_kept_byte_for_byte() -> None:
    raw = msgspec.msgpack.encode({"x": 1})
    event = codec.decode("moon_landed", 3, raw)
    assert event == Unknown(name="moon_landed", version=3, raw=raw)
    assert codec.encode(event) == raw
    assert codec.row(event).type == "moon_landed"


def test_a_newer_schema_of_a_known_type_is_kept_too() -> None:
    raw = codec.encode(JobSucceeded(job_id="job_1"))
    assert codec.decode("job_succeeded", 99, raw) == Unknown(name="job_succeeded", version=99, raw=raw)


def test_an_old_shape_is_lifted_step_by_step() -> None:
    """The record of today says `outcome`; once, long ago, it might have said `success`, and before that nothing."""
    steps = {
        ("tool_settled", -1): lambda fields: fields | {"success": True},
        ("tool_settled", 0): lambda fields: fields | {"outcome": "ok" if fields.pop("success") else "error"},
    }
    codec.UPCASTERS.update(steps)
    try:
        old = msgspec.msgpack.encode({"tool": "t1", "output": "done"})
        assert codec.decode("tool_settled", -1, old) == ToolSettled(tool="t1", outcome="ok", output="done")
    finally:
        for step in steps:
            del codec.UPCASTERS[step]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x93\x01\x02", b"\xff" * 10, b"\x81\xa1a"])
def test_bytes_that_are_no_event_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(Corrupt):
        codec.decode("job_succeeded", 1, data)


@given(st.binary(max_size=200))
def test_no_bytes_make_decoding_fail_otherwise(data: bytes) -> None:
    for name in ("job_queued", "model_answered", "tool_settled"):
        with suppress(Corrupt):
            codec.decode(name, 1, data)


def _stored(*events, version=0, previous=b"", position=1, **head):
    rows = tuple(codec.row(event) for event in events)
    envelope = Head(**{"id": "0" * 31 + str(position), "at": 5, "asked": "send", **head})
    digests = [codec.row_digest(row) for row in rows]
    envelope = msgspec.structs.replace(envelope, chain=codec.chain(previous, envelope, digests))
    return Stored(position, 1, Batch("session-a", version, envelope, rows))


def test_the_envelope_is_put_together_again() -> None:
    first, second = codec.unpack(_stored(SAMPLES[10], SAMPLES[11], version=4, position=7, cause="c-0"))
    assert (first.position, first.version, first.part, first.id) == (7, 5, 0, "0" * 31 + "7-0")
    assert (second.position, second.version, second.part, second.id) == (8, 6, 1, "0" * 31 + "7-1")
    assert first.head is second.head and first.head.cause == "c-0"
    assert first.data == SAMPLES[10] and first.size == len(codec.encode(SAMPLES[10]))


def _two_batches():
    one = _stored(SAMPLES[10], SAMPLES[11])
    two = _stored(SAMPLES[14], version=2, previous=one.batch.head.chain, position=3)
    return one, two


def test_a_chain_holds_over_what_was_appended() -> None:
    assert broken_at(_two_batches()) is None


@given(st.data())
def test_a_chain_breaks_at_any_changed_byte(data) -> None:
    batches = list(_two_batches())
    number = data.draw(st.integers(0, 1))
    batch = batches[number].batch
    index = data.draw(st.integers(0, len(batch.rows) - 1))
    row = batch.rows[index]
    at = data.draw(st.integers(0, len(row.data) - 1))
    changed = bytearray(row.data)
    changed[at] ^= data.draw(st.integers(1, 255))
    rows = list(batch.rows)
    rows[index] = msgspec.structs.replace(row, data=bytes(changed))
    batches[number] = msgspec.structs.replace(batches[number], batch=msgspec.structs.replace(batch, rows=tuple(rows)))
    assert broken_at(batches) == batch.version + 1


@pytest.mark.parametrize(
    "change",
    [{"at": 6}, {"asked": "x"}, {"cause": "x"}, {"correlation": "x"}, {"job": "x"}, {"owes": ("m1",)}, {"id": "x"}],
)
def test_a_chain_breaks_at_any_changed_field_of_the_envelope(change) -> None:
    one, two = _two_batches()
    head = msgspec.structs.replace(two.batch.head, **change)
    forged = msgspec.structs.replace(two, batch=msgspec.structs.replace(two.batch, head=head))
    assert broken_at([one, forged]) == 3


def test_a_chain_breaks_where_a_batch_is_missing() -> None:
    _, two = _two_batches()
    assert broken_at([two]) == 1
