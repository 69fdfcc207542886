"""Calls of a tool as a test makes them: with a context, on a pool of threads, for so long at most."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from reenact.adapters.tools.runner import ToolOutcome, run
from reenact.adapters.tools.tool import Tool, ToolContext

T = TypeVar("T")
CONTEXT = ToolContext(idempotency_key="key-1", session_id="sess_1", call_id="t1", attempt=2, workspace=Path("/w"))


def nothing() -> None: ...


def outcome_of(
    made: Tool[..., Any], arguments: object, pool: ThreadPoolExecutor, context: ToolContext = CONTEXT
) -> ToolOutcome:
    return asyncio.run(run(made, arguments, context, executor=pool))


def within(awaitable: Awaitable[T]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(awaitable, 20)

    return asyncio.run(bounded())
