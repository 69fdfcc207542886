"""python -m tests.simulation --seed 123        one world, with what was wrong in it
python -m tests.simulation --seed 0 --seeds 5000    many, until one fails
python -m tests.simulation --seed 123 --trace    one world, line by line"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any
from unittest.mock import patch

from reenact.events import codec

from .broken import BROKEN, build
from .simulate import simulate
from .world import World


def _written(write: Any) -> Any:
    """Print what is stored as it is stored."""

    def on_disk(world: World, stored: Any) -> None:
        head = stored.batch.head
        types = " ".join(event.type for event in codec.unpack(stored))
        print(f"{world.steps:6} {world.now:12.3f} {head.writer}: {stored.batch.stream} {head.asked} -> {types}")
        write(world, stored)

    return on_disk


def _noted(note: Any) -> Any:
    def noted(world: World, *words: object) -> None:
        print(f"{world.steps:6} {world.now:12.3f}   ", *words)
        note(world, *words)

    return noted


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--build", choices=sorted(BROKEN), help="a build with something wrong in it")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    asked = parser.parse_args()
    if asked.build:
        build(asked.build).__enter__()
    if asked.trace:
        patch.object(World, "_on_disk", _written(World._on_disk)).start()
        patch.object(World, "note", _noted(World.note)).start()
    began, counts, done = time.monotonic(), Counter[str](), 0
    for seed in range(asked.seed, asked.seed + asked.seeds):
        report = simulate(seed)
        counts.update(report.counts)
        done += 1
        if report.failures or asked.seeds == 1:
            print(report)
        if report.failures:
            return 1
        if done % 500 == 0:
            print(f"{done} seeds, none failed", file=sys.stderr)
    took_s = time.monotonic() - began
    print(f"{done} seeds, none failed, {done / took_s:.0f} seeds/s")
    for what, count in sorted(counts.items()):
        print(f"{count:9} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
