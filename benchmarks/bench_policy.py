"""What does it cost to ask the rules: a tool that was asked about before, one that was not, and rights made anew?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from reenact.actors.policy import Rights, rights_of
from reenact.actors.profiles import resolve

from .agent import LAYERS
from .harness import Digest, main


def checks(*, calls: int) -> dict[str, Any]:
    """So many questions of each kind, under three layers of policy."""
    layers, digest = resolve(LAYERS), Digest()
    rights = Rights(layers, "default")
    names = [f"tool_{number % 50}" for number in range(calls)]
    new = [f"tool_{number}" for number in range(calls)]
    for name in ("weather", "exec", "pay_bill", *names[:50]):
        digest.add(name, str(rights.tool(name).decision.value))
    fresh = Rights(layers, "default")
    return {
        "known_us": _us(rights.tool, names),
        "new_us": _us(fresh.tool, new),
        "ready_us": _us(lambda _: rights_of(layers, "default"), names),
        "made_us": _us(lambda _: Rights(layers, "default"), names[: max(1, calls // 100)]),
        "digest": str(digest),
    }


def _us(ask: Callable[[str], object], names: list[str]) -> float:
    began = time.perf_counter()
    for name in names:
        ask(name)
    return (time.perf_counter() - began) / len(names) * 1e6


CASES = {"checks": checks}

if __name__ == "__main__":
    main(CASES)
