"""What the next call of a model takes, at most: tokens that it reads and may write, and what they may cost. Pure."""

from __future__ import annotations

from msgspec import Struct

from ..events.budget import Amount, Rate

OUTPUT_TOKENS = 8_192
"""What a call under a budget may write where nobody set max_tokens."""

LEAST_TOKENS = 64
"""A call that could write less than this, and less than it should, is not made."""

LEAST_THINKING_TOKENS = 2_048
"""The same for a call that thinks first."""

LEAST_WRITTEN = {"openai": 16}
"""What a provider's models are asked to write at least, whatever max_tokens says: the Responses API takes no less."""


class Wish(Struct, frozen=True):
    """A model call as it is wanted.

    read: tokens that it reads, an upper bound. written: tokens that it may write, and least: with fewer it is of no
    use. rate: None where the model has no known price. steps: calls of the run before it. tools: calls of tools that
    the answer before it asked for.
    """

    call: str
    attempt: int
    model: str
    read: int
    written: int
    least: int
    rate: Rate | None
    steps: int
    wait_ms: int = 0
    tools: int = 0

    def amount(self, written: int) -> Amount:
        """What it takes, at most, when it may write so much."""
        cost = self.rate.cost(self.read, written) if self.rate is not None else 0
        return Amount(tokens=self.read + written, cost=cost, requests=1)

    def fits(self, written: int, room: Amount) -> int:
        """How many of so many tokens it may write within `room`; below zero where it may not even read."""
        written = min(written, room.tokens - self.read)
        if self.rate is not None:
            left = room.cost * 1_000_000 - self.read * self.rate.input
            if left < 0:
                return -1
            if self.rate.output:
                written = min(written, left // self.rate.output)
        return written if room.requests else -1
