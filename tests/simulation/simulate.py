"""One seed, from its first move to the verdict."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from .faults import Options
from .judges import LIVENESS, SAFETY, judge
from .world import World, installed


class Report(Struct, frozen=True):
    """failures: what was wrong, empty when nothing was. trace: digest of all that happened. counts: how often what."""

    seed: int
    options: Options
    failures: list[str]
    trace: str
    steps: int
    events: int
    counts: Counter[str]

    def __str__(self) -> str:
        lines = [f"SEED={self.seed}", f"options: {self.options}", f"trace: {self.trace}, {self.steps} moves"]
        return "\n".join([*lines, *(f"  {failure}" for failure in self.failures[:20])])


def simulate(seed: int, options: Options | None = None) -> Report:
    """Faults on: nothing false may be said. Faults off: everything must come to its end."""
    world = World(seed, options)
    with installed(world):
        world.rage()
        if not world.failures:
            world.failures += judge(world, SAFETY)
        if not world.failures:
            world.heal()
        if not world.failures:
            world.failures += judge(world, SAFETY + LIVENESS)
    return Report(seed, world.asked_for, world.failures, world.trace, world.steps, world.disk.position, world.counts)
