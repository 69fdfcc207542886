"""What a tool may know of the call it is running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct


class ToolContext(Struct, frozen=True, kw_only=True):
    """The call, as its tool may see it: a parameter annotated with this type gets it and is not shown to the model.

    idempotency_key: the same at every attempt of this call; hand it to whatever can recognise a repeat.
    call_id: of the call within its session. attempt: counts from 1. workspace: the folder to work in, None if there
    is none.
    on_progress: hears what `progress` is given, on the event loop's thread.
    """

    idempotency_key: str
    session_id: str
    call_id: str
    attempt: int = 1
    workspace: Path | None = None
    on_progress: Callable[[str], None] | None = None

    def progress(self, text: str) -> None:
        """Tell watchers how it goes. Live only: nothing is stored, and nothing is heard once the call has ended.

        May be called from any thread; does not wait and raises nothing of what its hearer raises.
        """
        if self.on_progress is not None:
            self.on_progress(text)
