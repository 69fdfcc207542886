"""Short ways to say what the tests of the bus emit, what was heard, and from which threads."""

import threading
from collections.abc import Callable
from typing import Any

from reenact.events.container import ContainerCreated
from reenact.events.message import Context, Head, Live, Recorded, live
from reenact.events.stream import TextDelta

SOON_S = 10.0  # only a broken build waits that long


def delta(text: str = "", session_id: str | None = None) -> Live:
    return live(TextDelta(text=text), at=0, context=Context(session_id=session_id))


def note(kind: str, n: int = 0) -> Live:
    return Live(kind, {"n": n})


def stored(position: int) -> Recorded:
    event = ContainerCreated(container_id="c", created_at=1)
    return Recorded(position, "container-c", position, 0, 1, event, Head(id="0", at=1, asked="create_container"))


def texts(heard: list[Any]) -> list[str]:
    return [event.data.text for event in heard]


def in_threads(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert not any(thread.is_alive() for thread in threads)
