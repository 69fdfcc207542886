"""Asking a probe whether a call took place: yes, no, or nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from reenact.adapters.tools.runner import Proof, probe
from reenact.adapters.tools.tool import ToolContext, tool
from tests.adapters.calls import CONTEXT, nothing


def probed(function: Callable[..., Any], pool: ThreadPoolExecutor, arguments: object = None) -> Proof:
    @tool(effect="probeable", probe=function, timeout_s=0.2)
    def charge(order: str, cents: int = 7) -> str:
        raise AssertionError("a probe must not run its tool")

    return asyncio.run(probe(charge, arguments or {"order": "A"}, CONTEXT, executor=pool))


@pytest.mark.parametrize(
    ("answer", "happened", "output"),
    [
        (None, False, ""),
        (False, False, ""),
        (True, True, ""),
        ("receipt 3", True, "receipt 3"),
        ({"receipt": 3}, True, '{"receipt":3}'),
        (3, True, "3"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_probe_says_whether_it_happened(
    asynchronous: bool, answer: object, happened: bool, output: str, pool: ThreadPoolExecutor
) -> None:
    def look(key: str) -> object:
        return answer if key == "key-1" else "another call's"

    async def async_look(key: str) -> object:
        return look(key)

    proof = probed(async_look if asynchronous else look, pool)
    assert (proof.happened, proof.output, proof.reason) == (happened, output, "")


@pytest.mark.parametrize("answer", [0, 0.0, "", b"", [], {}, (), set()])
def test_an_empty_answer_proves_nothing(answer: object, pool: ThreadPoolExecutor) -> None:
    proof = probed(lambda key: answer, pool)
    assert proof.happened is None and "proves neither" in proof.reason


def test_a_probe_gets_what_it_asks_for(pool: ThreadPoolExecutor) -> None:
    def look(cents: int, order: str, idempotency_key: str, call: ToolContext, spare: int = 1) -> str:
        return f"{cents} {order} {idempotency_key} {call.attempt} {spare}"

    assert probed(look, pool).output == "7 A key-1 2 1"
    assert probed(look, pool, {"order": "B", "cents": 9}).output == "9 B key-1 2 1"
    assert probed(lambda: True, pool).happened is True


def test_a_probe_that_fails_proves_nothing(pool: ThreadPoolExecutor) -> None:
    def broken(key: str) -> None:
        raise ConnectionError("no route")

    async def endless(key: str) -> None:
        await asyncio.Event().wait()

    def odd(key: str) -> object:
        return object()

    assert probed(broken, pool).happened is None
    assert probed(broken, pool).reason == "ConnectionError: no route"
    assert "did not end within 0.2 s" in probed(endless, pool).reason
    assert "neither text nor JSON" in probed(odd, pool).reason
    assert probed(odd, pool).happened is None


def test_arguments_that_are_no_longer_fitting_prove_nothing(pool: ThreadPoolExecutor) -> None:
    proof = probed(lambda key: True, pool, {"order": 1})
    assert proof.happened is None and "$.order" in proof.reason


def test_a_tool_without_a_probe_proves_nothing(pool: ThreadPoolExecutor) -> None:
    proof = asyncio.run(probe(tool(nothing), {}, CONTEXT, executor=pool))
    assert proof == Proof(happened=None, reason="nothing has no probe")
