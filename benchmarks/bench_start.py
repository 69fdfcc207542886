"""How long from the start of a process until a session of 1,000 messages is at hand, and what do the imports cost?

Cold means a fresh process; the page cache is warm and modules are compiled, as in any installed program. Every import
that the kernel needs is in the figure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Any

from .harness import Digest, fresh, main, memory_mb, scratch


def imported(*, statement: str) -> dict[str, Any]:
    """Wall time of `python -c statement`, and of a Python that does nothing, in ms."""
    took = {}
    subprocess.run([sys.executable, "-c", statement], check=True)  # leaves its bytecode behind
    for name, source in (("bare_ms", "pass"), ("wall_ms", statement)):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", source], check=True)
        took[name] = (time.perf_counter() - began) * 1e3
    probe = f"import sys; before = len(sys.modules); {statement}; print(len(sys.modules) - before)"
    modules = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout
    return {**took, "modules": int(modules)}


def cold(*, messages: int) -> dict[str, Any]:
    """Make a session of so many messages, then start a process that opens it."""
    import asyncio

    with scratch() as folder:
        made, copy = folder / "made", folder / "copy"
        made.mkdir()
        asyncio.run(_prepare(str(made), messages // 4))
        for _ in range(2):  # the first one warms the page cache
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(made, copy)
            found = fresh("bench_start", "ready", folder=str(copy))
            assert found["messages"] == messages // 4 * 4, found
    return found


async def _prepare(folder: str, count: int) -> None:
    from pathlib import Path

    from .agent import Checking, runtime
    from .harness import USER

    async with runtime(Path(folder), Checking()) as running:
        bot = await running.image("bench", model="scripted:bench", instructions="You are helpful.")
        for _ in range(count):
            await bot.send(USER)


def ready(*, folder: str) -> dict[str, Any]:
    """In the fresh process: open the log as its owner, read the session, then send to it.

    ready_ms: from the start of the process until all messages are at hand. asked_ms: until the model of the next turn
    has been handed all of them, the new input committed; every one of both, measured from before the process began.
    """
    import asyncio
    from pathlib import Path

    began = float(os.environ["REENACT_BENCH_T0"])
    imported_at = time.time()

    async def work() -> dict[str, Any]:
        from reenact import Runtime

        assert Runtime is not None
        from .agent import Checking, runtime
        from .harness import USER

        loaded_at = time.time()

        class Asked(Checking):
            at = 0.0

            async def stream(self, request: Any) -> Any:
                self.at = self.at or time.time()
                async for item in super().stream(request):
                    yield item

        model, digest = Asked(), Digest()
        async with runtime(Path(folder), model) as running:
            bot = await running.image("bench", model="scripted:bench", instructions="You are helpful.")
            messages = await bot.messages()
            ready_at = time.time()
            for message in messages:
                digest.add(message.role, message.content)
            await bot.send(USER)
        return {
            "python_ms": (imported_at - began) * 1e3,
            "imports_ms": (loaded_at - imported_at) * 1e3,
            "ready_ms": (ready_at - began) * 1e3,
            "asked_ms": (model.at - began) * 1e3,
            "messages": len(messages),
            "memory_mb": memory_mb(),
            "digest": str(digest),
        }

    return asyncio.run(work())


CASES = {"cold": cold, "ready": ready, "imported": imported}

if __name__ == "__main__":
    main(CASES)
