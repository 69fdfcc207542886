"""In which order the limits of a ledger were asked for, by whomever: of two for the same, the last asked for stands.

It knows nothing of what the limits are, and no time: a clock may stand still.
"""

from __future__ import annotations

Owner = tuple[str, str | None, str | None]
"""Whose a limit is: a scope's, or that of one principal or session of it."""


class Order:
    """What one process asked for. The limits that it found are older than all of it."""

    def __init__(self) -> None:
        self._last = 0
        self._newest: dict[Owner, int] = {}

    def asked(self) -> int:
        """A number for a limit that is set or lifted now, higher than all before."""
        self._last += 1
        return self._last

    def done(self, owner: Owner, asked: int) -> None:
        """What was asked for is in force, or lifted."""
        self._newest[owner] = max(asked, self._newest.get(owner, 0))

    def is_late(self, owner: Owner, asked: int) -> bool:
        """Whether what was asked for after it is done already."""
        return self._newest.get(owner, 0) > asked
