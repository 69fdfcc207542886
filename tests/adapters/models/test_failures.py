"""What went wrong, in our words; and the time limit of a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import formatdate

import httpx2
import pytest

from reenact.adapters.models.deadline import Deadline
from reenact.adapters.models.failures import RETRYABLE, broken, code_of_status, error_in, failure, retry_after_s


def test_a_message_is_one_line_of_bounded_length_without_the_key() -> None:
    got = failure("auth", "bad\n key \0 sk-123456789 " + "x" * 5_000, secret="sk-123456789")
    assert got.message.startswith("bad key � *** xxx") and len(got.message) < 1_010 and "\n" not in got.message
    assert failure("rate_limit", " ").message == "rate limit"


def test_a_failure_is_worth_another_try_as_its_code_is_unless_said_otherwise() -> None:
    assert all(failure(code, "x").retryable for code in RETRYABLE)
    assert not any(failure(code, "x").retryable for code in ("auth", "billing", "invalid_request", "bad_response"))
    assert failure("bad_response", "x", retryable=True).retryable


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        (" 3 ", 3.0),
        ("0", 0.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_the_wait_that_is_asked_for_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": value}) == seconds


def test_the_wait_that_is_asked_for_as_a_date_or_in_milliseconds() -> None:
    at = retry_after_s({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert at is not None and 55 < at <= 60
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after_s({"retry-after-ms": "x", "retry-after": "9"}) == 9.0
    assert retry_after_s({}) is None


def test_a_status_alone_says_what_it_can() -> None:
    assert [code_of_status(status) for status in (401, 429, 529, 500, 507, 418)] == [
        "auth",
        "rate_limit",
        "overloaded",
        "server_error",
        "server_error",
        "invalid_request",
    ]


def test_error_bodies_of_any_shape_are_read() -> None:
    assert error_in({"error": {"type": "t", "code": 5, "message": "m"}}) == ("t", "5", "m")
    assert error_in({"type": "t", "message": "m"}) == ("t", None, "m")
    assert error_in({"error": "words"}) == error_in("words") == (None, None, "words")
    assert error_in({"detail": "d"}) == (None, None, "d")
    assert error_in(None) == error_in({"error": None}) == error_in([1]) == (None, None, None)


REQUEST = httpx2.Request("POST", "http://127.0.0.1/")


@pytest.mark.parametrize(
    ("error", "before", "within"),
    [
        (httpx2.ConnectError("no"), "connection", "stream_cut"),
        (httpx2.ReadError(""), "connection", "stream_cut"),
        (httpx2.RemoteProtocolError("eof"), "connection", "stream_cut"),
        (httpx2.ConnectTimeout("t"), "timeout", "timeout"),
        (httpx2.ReadTimeout("t"), "timeout", "timeout"),
        (httpx2.DecodingError("gzip"), "bad_response", "bad_response"),
        (httpx2.UnsupportedProtocol("x"), "invalid_request", "invalid_request"),
        (ConnectionResetError("reset"), "connection", "stream_cut"),
    ],
)
def test_a_broken_connection_is_judged_by_how_and_when_it_broke(error: Exception, before: str, within: str) -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = error
    for seen in (error, wrapped):
        early, late = broken(seen, started=False), broken(seen, started=True)
        assert early is not None and late is not None
        assert (early.code, late.code) == (before, within)
    assert broken(KeyError("ours"), started=True) is None


# -- the time limit --


async def ticks(interval_s: float) -> AsyncIterator[int]:
    number = 0
    while True:
        await asyncio.sleep(interval_s)
        number += 1
        yield number


def test_a_wait_ends_when_the_time_is_up() -> None:
    async def run() -> None:
        deadline = Deadline(0.02)
        with pytest.raises(TimeoutError), deadline:
            await asyncio.sleep(30)
        with pytest.raises(TimeoutError), deadline:
            raise AssertionError("nothing begins after the end")
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0

    asyncio.run(run())


def test_whoever_consumes_the_stream_is_left_alone() -> None:
    # Shown to fail: with asyncio.timeout around the whole generator, the consumer's own sleep is cancelled.
    async def limited() -> AsyncIterator[int]:
        deadline = Deadline(0.03)
        source = ticks(0.001)
        try:
            while True:
                with deadline:
                    number = await anext(source)
                yield number
        finally:
            deadline.close()

    async def run() -> None:
        stream = limited()
        assert await anext(stream) == 1
        await asyncio.sleep(0.06)
        with pytest.raises(TimeoutError):
            await anext(stream)

    asyncio.run(run())


def test_a_cancel_from_outside_stays_one() -> None:
    async def run() -> None:
        deadline = Deadline(0.01)
        begun = asyncio.Event()

        async def wait() -> None:
            with deadline:
                begun.set()
                await asyncio.sleep(30)

        task = asyncio.create_task(wait())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deadline.close()

    asyncio.run(run())
