"""Now, and new ids, as things one is given. The system's own live here and nowhere else. Home of uuid_utils."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time and identity come from. Deciders never see it: what it says travels inside commands."""

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...

    def new_id(self) -> str:
        """32 hex digits, unique for ever, rising with time."""
        ...


class SystemClock:
    """The machine's clock, and uuid version 7 for ids."""

    def __init__(self) -> None:
        from uuid_utils import uuid7

        self._uuid7 = uuid7

    def now(self) -> int:
        return time.time_ns() // 1000

    def new_id(self) -> str:
        return self._uuid7().hex


class ManualClock:
    """A clock that stands still until it is moved, and counts its ids. For tests and simulations."""

    def __init__(self, now: int = 1_700_000_000_000_000, *, prefix: int = 0) -> None:
        self._now = now
        self._ids = prefix

    def now(self) -> int:
        return self._now

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:032x}"

    def move(self, *, s: float) -> None:
        """Move time by so many seconds; back when negative."""
        self._now += int(s * 1_000_000)


class Ids:
    """Opaque ids with the prefix of their noun, from a clock: `sess_…`, `img_…`, `agent_…`, `job_…`."""

    def __init__(self, clock: Clock) -> None:
        self._new = clock.new_id

    def __call__(self, prefix: str) -> str:
        return f"{prefix}_{self._new()}"
