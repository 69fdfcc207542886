"""What a tool may know of the call it is running."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Self

from msgspec import Struct

from ...events.errors import NotFound
from ...events.secret import Secret
from ..hosts.caller import MARK


class Waiting:
    """How long a call has waited for people, which does not count as its time. On one loop, `with` around a wait."""

    __slots__ = ("_depth", "_since", "_total_s")

    def __init__(self) -> None:
        self._depth = 0
        self._since = 0.0
        self._total_s = 0.0

    def __enter__(self) -> Self:
        if not self._depth:
            self._since = monotonic()
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._total_s += monotonic() - self._since

    @property
    def now(self) -> bool:
        """Whether it waits at this moment."""
        return self._depth > 0

    @property
    def seconds(self) -> float:
        """In all, so far."""
        return self._total_s + (monotonic() - self._since if self._depth else 0.0)


class ToolContext(Struct, frozen=True, kw_only=True):
    """The call, as its tool may see it: a parameter annotated with this type gets it and is not shown to the model.

    idempotency_key: the same at every attempt of this call; hand it to whatever can recognise a repeat.
    call_id: of the call within its session. attempt: counts from 1. workspace: the folder to work in, None if there
    is none.
    on_progress: hears what `progress` is given, on the event loop's thread. job_id: the job it works for.
    actions: puts questions to people, see `reenact.ActionManager`; for async tools. waiting: how long it has waited for
    their answers, which does not count against its time limit.
    secrets: gives those of the runtime by name. surroundings: gives the environment for what the tool begins.
    """

    idempotency_key: str
    session_id: str
    call_id: str
    attempt: int = 1
    workspace: Path | None = None
    on_progress: Callable[[str], None] | None = None
    job_id: str | None = None
    actions: Any = None
    waiting: Waiting | None = None
    secrets: Callable[[str], Secret | None] | None = None
    surroundings: Callable[[], dict[str, str]] | None = None

    def secret(self, name: str) -> Secret:
        """The secret that was registered with `Runtime.secret` by this name; `reveal()` it where it is used.

        Whatever the tool returns, raises or reports is searched for it. Keys of providers are not among them. Raises
        NotFound when there is none of this name.
        """
        found = self.secrets(name) if self.secrets is not None else None
        if found is None:
            raise NotFound(f"There is no secret {name!r}: the program registers it with Runtime.secret.")
        return found

    @property
    def environ(self) -> dict[str, str]:
        """The environment for a process that the tool begins, for `env=` of `subprocess` and its like.

        It is this process's own, without the secrets in it: the keys of providers, what is named as secrets are
        (`…_TOKEN`, `…PASSWORD`), what looks like a key. Add by name what the process needs of them. With it goes the
        mark by which such a process, and whatever it begins, is known: it decides nothing, however long it lives.
        """
        own = dict(os.environ) if self.surroundings is None else self.surroundings()
        return {**own, MARK: f"{self.session_id}:{self.call_id}"}

    def progress(self, text: str) -> None:
        """Tell watchers how it goes. Live only: nothing is stored, and nothing is heard once the call has ended.

        May be called from any thread; does not wait and raises nothing of what its hearer raises.
        """
        if self.on_progress is not None:
            self.on_progress(text)
