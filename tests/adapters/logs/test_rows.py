"""The packing of a batch into rows, and back: any head comes back alike, and garbage is `Corrupt` and nothing else."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reenact.adapters.logs.rows import EventRow, batches, pack_head
from reenact.events.errors import Corrupt
from reenact.events.log import Row
from reenact.events.message import Context, Head


class AnyNames:
    """Every number stands for something."""

    def stream(self, number: int) -> str:
        return f"stream-{number}"

    def type(self, number: int) -> tuple[str, int]:
        return f"type_{number}", 1

    def context(self, number: int) -> Context:
        return Context(session_id=str(number))

    def key(self, number: int) -> str:
        return f"key-{number}"

    def writer(self, epoch: int) -> str:
        return f"writer-{epoch}"


digits = st.text("0123456789abcdefABCDEF-_job", max_size=70)
ids = st.one_of(st.text(), digits, st.binary(min_size=16, max_size=16).map(bytes.hex))
optional = st.none() | ids
events = st.builds("{}-{}".format, ids, st.integers(0, 2000))
lifetimes = st.integers(-(2**63), 2**64 - 1) | st.integers(0, 2**18)


@given(ids, lifetimes, optional | events, optional, optional, optional, st.lists(ids), st.binary(), ids)
@example("0" * 32, 65_535, f"{'ab' * 16}-0", "ab" * 16, None, f"job_{'0' * 32}", [], b"", "")
@example("0" * 32, 65_536, f"{'ab' * 16}-999", "cd" * 16, None, f"agent_{'0' * 32}", [], b"", "")
@example("7" * 32, 5, f"{'ab' * 16}-1000", "ab" * 16, f"{'ab' * 16}-7", f"job_{'0' * 32}-1", [], b"", "")
@example("7" * 32, 5, "0", "", None, None, [], b"", "")
@example("7" * 32, 5, f"{'ab' * 16}-07", "ab" * 16, f"{'ab' * 16}-07", None, [], b"", "")
def test_any_head_is_read_back_as_it_was(
    id: str,
    at: int,
    cause: str | None,
    correlation: str | None,
    trace: str | None,
    job: str | None,
    owes: list[str],
    chain: bytes,
    writer: str,
) -> None:
    head = Head(
        id=id,
        at=at,
        asked="type_7",
        cause=cause,
        correlation=correlation,
        trace=trace,
        job=job,
        context=Context(session_id="9"),
        owes=tuple(owes),
        chain=chain,
        writer=writer,
    )
    packed = pack_head(head, count=2, asked=7, context=9, writer="writer-3")
    rows: list[EventRow] = [(11, 5, 1, 0, 1, 3, None, packed, b"a"), (12, 5, 2, 1, 2, 3, 4, None, b"b")]
    (stored,) = batches(rows, AnyNames())  # type: ignore[arg-type]
    assert (stored.position, stored.epoch) == (11, 3)
    assert (stored.batch.stream, stored.batch.version, stored.batch.head) == ("stream-5", 0, head)
    assert stored.batch.rows == (Row("type_1", 1, b"a"), Row("type_2", 1, b"b", "key-4"))


def test_a_head_of_the_usual_kind_takes_about_110_bytes() -> None:
    digits = "0123456789abcdef" * 2
    head = Head(
        id=digits,
        at=1_700_000_000_000_000,
        asked="x",
        cause=f"{digits}-0",
        correlation=digits[::-1],
        job=f"job_{digits}",
        owes=("call-3",),
        chain=bytes(32),
        writer="me",
    )
    assert len(pack_head(head, count=3, asked=9, context=1, writer="me")) < 145
    first = Head(id=digits, at=1, asked="x", correlation=digits, chain=bytes(32), writer="me")
    assert len(pack_head(first, count=3, asked=9, context=1, writer="me")) < 70


def _mutations() -> st.SearchStrategy[bytes]:
    good = pack_head(Head(id="ab" * 16, at=1, asked="x", owes=("1",)), count=1, asked=1, context=1, writer="")
    flips = st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), min_size=1, max_size=6)

    def mutate(changes: list[tuple[int, int]]) -> bytes:
        bad = bytearray(good)
        for at, value in changes:
            bad[at] = value
        return bytes(bad)

    return st.one_of(st.binary(max_size=60), flips.map(mutate), st.integers(0, len(good)).map(lambda n: good[:n]))


@given(_mutations())
@example(b"\x9c" + b"\x01" * 12)
def test_a_head_of_garbage_is_corrupt_and_nothing_else(head: bytes) -> None:
    try:
        list(batches([(1, 1, 1, 0, 1, 1, None, head, b"")], AnyNames()))  # type: ignore[arg-type]
    except Corrupt as error:
        assert "position 1" in str(error)


def test_no_flipped_bit_of_a_head_gives_the_head_that_was_written() -> None:
    """The digest is over what a head says, so it finds no flip that says the same."""
    digits = "0123456789abcdef" * 2
    at = int(digits[:12], 16) * 1000 + 250
    good = Head(
        id=digits, at=at, asked="type_7", cause=f"{digits[::-1]}-1", correlation=digits[1:] + "0", job=f"job_{digits}"
    )
    packed = pack_head(good, count=1, asked=7, context=9, writer="writer-1")

    def read(head: bytes) -> list[Head]:
        return [each.batch.head for each in batches([(1, 1, 1, 0, 1, 1, None, head, b"")], AnyNames())]  # type: ignore[arg-type]

    [written] = read(packed)
    for bit in range(len(packed) * 8):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        with suppress(Corrupt):
            assert read(bytes(flipped)) != [written], f"bit {bit} of {packed!r}"


def test_rows_that_do_not_follow_each_other_are_corrupt() -> None:
    head = pack_head(Head(id="1", at=1, asked="x"), count=2, asked=1, context=1, writer="")
    first: EventRow = (1, 1, 1, 0, 1, 1, None, head, b"")
    for second in (
        (3, 1, 2, 1, 1, 1, None, None, b""),
        (2, 2, 2, 1, 1, 1, None, None, b""),
        (2, 1, 3, 1, 1, 1, None, None, b""),
        (2, 1, 2, 2, 1, 1, None, None, b""),
        (2, 1, 2, 1, 1, 2, None, None, b""),
    ):
        with pytest.raises(Corrupt, match=r"Event \d does not go on"):
            list(batches([first, second], AnyNames()))  # type: ignore[arg-type]
    with pytest.raises(Corrupt, match="lacks its last 1 events"):
        list(batches([first], AnyNames()))  # type: ignore[arg-type]
