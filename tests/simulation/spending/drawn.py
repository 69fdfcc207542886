"""What is drawn from a seed before its world begins: the limits, whether calls are dear, whether limits are changed.

Whatever happens in it afterwards is drawn as it happens, from `chance`, and who sends a message from `people`.
"""

from __future__ import annotations

import random
from typing import Any

from reenact.events.budget import Budget, dollars


class Drawn:
    """greedy: every call costs all that was set aside for it. changing: limits are changed in the middle. times: how
    often a first limit is set. budget_of_bob: one principal's own limits, where several share the sessions."""

    def __init__(self, seed: int, *, free: bool, several: bool) -> None:
        self.chance = random.Random(seed)
        chances = random.Random(-seed - 1)
        self.greedy = self.chance.random() < 0.5
        self.budget = _budget(self.chance)
        self.changing = chances.random() < 0.4 and not several
        self.times = chances.choice([1, 1, 2]) if free else 0
        self.people = random.Random(f"people {seed}") if several else None
        self.budget_of_bob = _budget_of_bob(self.people) if self.people is not None else None


def _budget(chance: random.Random) -> Budget:
    limits: dict[str, Any] = {"max_tokens_total": chance.randint(2_000, 20_000)}
    if chance.random() < 0.6:
        limits["max_cost_total"] = dollars(chance.randint(20_000, 200_000))
    if chance.random() < 0.5:
        limits["max_requests_daily"] = chance.randint(10, 120)
    if chance.random() < 0.3:
        limits["max_tool_calls_daily"] = chance.randint(5, 60)
    return Budget(**limits)


def _budget_of_bob(chance: random.Random) -> Budget:
    limits: dict[str, Any] = {"max_requests_daily": chance.randint(0, 20)}
    if chance.random() < 0.5:
        limits["max_tokens_total"] = chance.randint(0, 4_000)
    if chance.random() < 0.5:
        limits["max_requests_per_minute"] = chance.randint(1, 4)
    return Budget(principal_id="bob", **limits)
