"""What the model sees: the items of a session's context, kept up event by event and never rebuilt. Pure.

The rule of this file: whatever the log holds, in whatever order, every call in the list is closed exactly once, by a
result in the item right after the one that asked, and no two calls have the same id. What the log does not say is
filled in here, so that no provider ever sees a call without its result.

Items are only appended. What was rendered for one call of the model stands unchanged at the head of what is rendered
for the next, so a provider's cache keeps hitting. A result that comes when the conversation has gone on is therefore
not taken up any more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, overload

import msgspec
from msgspec.structs import replace

from ..events.action import ActionRequired, ActionResolved
from ..events.agent import ModelAnswered, ModelCalled, ModelFailed, ToolOutput, ToolRequested, ToolSettled
from ..events.content import (
    AssistantItem,
    InputPart,
    Item,
    Native,
    OutputPart,
    ResultItem,
    Text,
    ToolCall,
    ToolResult,
    UserItem,
)
from ..events.message import Erased, Event, Recorded, Unknown
from ..events.session import JobCancelled, JobQueued, JobStarted, JobTimedOut

UNFINISHED = "No result: the call was not finished."
NOT_RUN = "Not run: the answer broke off."
ERASED = "[erased]"
UNREADABLE = "[unreadable: written by a newer release]"
EMPTY = "[empty]"
SAID_NOTHING = {
    "ok": "",
    "error": "The call failed.",
    "denied": "Not run: the call was denied.",
    "skipped": "Not run: the turn was stopped before this call began.",
    "unknown": "It is not known whether this call took effect.",
}
"""What a call that ended without a word of output tells the model, by outcome."""


CHANGED = "[A person changed the arguments of this call before it ran. It ran with: {}]"
CHANGED_ONLY = "[A person changed the arguments of this call, and then it was not run. It would have run with: {}]"
"""What stands before the output of a call that a person approved with other arguments. What the model is shown as its
call stays what it asked for, under the id that it gave: no provider takes another."""

_NOT_RUN = {"denied", "skipped"}


class Context:
    """The context of one session, from its first event on.

    `apply` takes the session's events in order of version, each once; it never raises, and passes over what it does not
    know. `render` gives the list as it stood at a version. cache: for a model's adapter, to keep what it made of the
    items; it lives and dies with this object, and so with the list.
    """

    __slots__ = (
        "_answer",
        "_answers",
        "_asked",
        "_changed",
        "_ids",
        "_items",
        "_lost",
        "_queued",
        "_repeats",
        "_tools",
        "_versions",
        "cache",
    )

    def __init__(self) -> None:
        self.cache: dict[str, Any] = {}
        self._items: list[Item] = []
        self._versions: list[int] = []  # of the items; never falls
        self._queued: dict[str, tuple[InputPart, ...]] = {}
        self._lost = ERASED  # stands for an input that could not be read
        self._ids: set[str] = set()  # of the calls in the list
        self._repeats: dict[str, int] = {}
        self._answer: _Answer | None = None  # the last one, while calls of it are open
        self._answers: dict[int, _Answer] = {}  # by place in the list: those whose calls did not all end in one event
        # Of the open answer: a call's name in the session -> its place among the calls.
        self._tools: dict[str, int] = {}
        self._asked: dict[str, str] = {}  # questions about its calls -> the call
        self._changed: dict[str, str] = {}  # calls whose arguments a person changed -> those, as JSON

    def apply(self, recorded: Recorded) -> None:
        """Take the next event of the session."""
        take = _TAKE.get(type(recorded.data))
        if take is not None:
            take(self, recorded.data, recorded.version)

    def render(self, upto: int) -> Sequence[Item]:
        """The items up to version `upto`, every call closed: the same whatever was applied after that version.

        What is given back is a view that never changes. It costs the same at the first turn and at the last.
        """
        items, versions = self._items, self._versions
        count = len(items)
        if count and versions[-1] > upto:
            count = bisect_right(versions, upto)
        if not count or not isinstance(last := items[count - 1], AssistantItem):
            return _View(items, count)
        return _View(items, count, self._closing(count - 1, last, upto))

    # -- what enters --

    def _append(self, item: Item) -> None:
        self._items.append(item)
        self._versions.append(item.version)

    def _user(self, version: int, parts: tuple[InputPart, ...]) -> None:
        self._close(version)
        said = tuple(part for part in parts if not isinstance(part, Text) or part.text.strip())
        self._append(UserItem(version=version, parts=said or (Text(text=EMPTY),)))

    def _assistant(self, version: int, parts: tuple[OutputPart, ...]) -> _Answer | None:
        """Append what the model said, if it said anything; the answer, if it has calls."""
        self._close(version)
        said: list[OutputPart] = []
        calls: list[ToolCall] = []
        places: dict[int, int] = {}
        substance = False
        for index, part in enumerate(parts):
            if isinstance(part, Text):
                # A blank text is nothing, and some providers refuse to take it back.
                if not part.text.strip():
                    if part.extra is not None:
                        said.append(part)
                    continue
                substance = True
            elif isinstance(part, ToolCall):
                part = self._named(part)
                places[index] = len(calls)
                calls.append(part)
                substance = True
            elif isinstance(part, Native):
                substance = True
            said.append(part)
        if not substance:
            return None  # reasoning that led to nothing is no message: no provider takes it back alone
        self._append(AssistantItem(version=version, parts=tuple(said)))
        return _Answer(len(self._items) - 1, tuple(calls), places) if calls else None

    def _named(self, call: ToolCall) -> ToolCall:
        """The call under an id that no other call of the list has: its own, or `<id>-<n>`."""
        name = call.id
        if not name or name in self._ids:
            base = name or "call"
            count = self._repeats.get(base, 1 if name else 0)
            while not name or name in self._ids:
                count += 1
                name = f"{base}-{count}"
            self._repeats[base] = count
            call = replace(call, id=name)
        self._ids.add(name)
        return call

    # -- how calls are closed --

    def _close(self, version: int) -> None:
        """Close the open answer with what is known by now: something comes after it, or a model is shown it."""
        answer = self._answer
        if answer is not None:
            self._append(ResultItem(version=version, results=answer.results(version)))
            if len(answer.calls) > 1 or answer.erased:
                self._answers[answer.place] = answer
            self._answer = None
            self._tools = {}
            self._asked, self._changed = {}, {}

    def _settle(self, version: int) -> None:
        if self._answer is not None and self._answer.closed:
            self._close(version)

    def _closing(self, place: int, item: AssistantItem, upto: int) -> ResultItem | None:
        """The results of the last item as they stood at `upto`, None where it has no calls."""
        answer = self._answer if self._answer is not None and self._answer.place == place else self._answers.get(place)
        if answer is not None:
            return ResultItem(version=upto, results=answer.results(upto))
        unfinished = tuple(_synthetic(part, UNFINISHED) for part in item.parts if isinstance(part, ToolCall))
        return ResultItem(version=upto, results=unfinished) if unfinished else None

    # -- the events --

    def _on_queued(self, event: JobQueued, version: int) -> None:
        self._queued[event.job_id] = event.content

    def _on_gone(self, event: JobCancelled | JobTimedOut, version: int) -> None:
        self._queued.pop(event.job_id, None)

    def _on_started(self, event: JobStarted, version: int) -> None:
        self._user(version, self._queued.pop(event.job_id, (Text(text=self._lost),)))

    def _on_called(self, event: ModelCalled, version: int) -> None:
        self._close(version)

    def _on_answered(self, event: ModelAnswered, version: int) -> None:
        self._answer = self._assistant(version, event.parts)
        if self._answer is not None:
            self._answer.call = event.call

    def _on_failed(self, event: ModelFailed, version: int) -> None:
        if event.retry_in_ms is not None or not event.partial:
            return
        answer = self._assistant(version, event.partial)
        if answer is not None:
            self._append(ResultItem(version=version, results=tuple(_synthetic(call, NOT_RUN) for call in answer.calls)))

    def _on_requested(self, event: ToolRequested, version: int) -> None:
        answer = self._answer
        if answer is not None and answer.call == event.call and event.part in answer.places:
            self._tools.setdefault(event.tool, answer.places[event.part])

    def _on_settled(self, event: ToolSettled, version: int) -> None:
        answer, place = self._answer, self._tools.get(event.tool)
        if answer is None or place is None or answer.ends[place] is not None:
            return
        call, failed = answer.calls[place], event.outcome != "ok"
        output = event.output or SAID_NOTHING.get(event.outcome, SAID_NOTHING["error"])
        if event.tool in self._changed:
            note = CHANGED_ONLY if event.outcome in _NOT_RUN else CHANGED
            output = _behind(note.format(self._changed[event.tool]), output)
        answer.ends[place] = (version, ToolResult(id=call.id, name=call.name, output=output, is_error=failed))
        self._settle(version)

    def _on_required(self, event: ActionRequired, version: int) -> None:
        if event.tool in self._tools:
            self._asked[event.action] = event.tool

    def _on_resolved(self, event: ActionResolved, version: int) -> None:
        tool, arguments = self._asked.get(event.action), event.resolution.get("arguments")
        if tool is not None and arguments is not None and event.resolution.get("approved") is True:
            self._changed[tool] = msgspec.json.encode(arguments).decode()

    def _on_blank(self, event: Erased | Unknown, version: int) -> None:
        """What cannot be read still had its place in the conversation."""
        blank = ERASED if isinstance(event, Erased) else UNREADABLE
        if event.name == JobQueued.type:
            self._lost = blank
        elif event.name == JobStarted.type:
            self._user(version, (Text(text=blank),))
        elif event.name == ModelAnswered.type:
            self._assistant(version, (Text(text=blank),))
        elif event.name == ToolSettled.type and self._answer is not None:
            self._answer.erased.append((version, blank))
            self._settle(version)


_TAKE: dict[type[Event], Callable[[Context, Any, int], None]] = {
    JobQueued: Context._on_queued,
    JobStarted: Context._on_started,
    JobCancelled: Context._on_gone,
    JobTimedOut: Context._on_gone,
    ModelCalled: Context._on_called,
    ModelAnswered: Context._on_answered,
    ModelFailed: Context._on_failed,
    ToolRequested: Context._on_requested,
    ToolSettled: Context._on_settled,
    ActionRequired: Context._on_required,
    ActionResolved: Context._on_resolved,
    Erased: Context._on_blank,
    Unknown: Context._on_blank,
}


class _Answer:
    """An answer with calls, and how each of them ended.

    place: of its item in the list. places: index of the part -> place among the calls. erased: versions of ends that
    cannot be read; which calls they ended is not known, so they stand for the first ones without an end.
    """

    __slots__ = ("call", "calls", "ends", "erased", "place", "places")

    def __init__(self, place: int, calls: tuple[ToolCall, ...], places: dict[int, int]) -> None:
        self.place = place
        self.calls = calls
        self.places = places
        self.call = ""
        self.ends: list[tuple[int, ToolResult] | None] = [None] * len(calls)
        self.erased: list[tuple[int, str]] = []

    @property
    def closed(self) -> bool:
        return self.ends.count(None) <= len(self.erased)

    def results(self, upto: int) -> tuple[ToolResult, ...]:
        """One result a call, in the order of the calls, as known at `upto`."""
        blanks = [blank for version, blank in self.erased if version <= upto]
        out = []
        for call, end in zip(self.calls, self.ends, strict=True):
            if end is not None and end[0] <= upto:
                out.append(end[1])
            elif blanks:
                out.append(ToolResult(id=call.id, name=call.name, output=blanks.pop(0)))
            else:
                out.append(_synthetic(call, UNFINISHED))
        return tuple(out)


def _behind(note: str, output: ToolOutput) -> ToolOutput:
    return f"{note}\n\n{output}" if isinstance(output, str) else (Text(text=note), *output)


def _synthetic(call: ToolCall, text: str) -> ToolResult:
    return ToolResult(id=call.id, name=call.name, output=text, is_error=True)


class _View(Sequence[Item]):
    """The first `count` items of a list that only grows, and one closing item or none."""

    __slots__ = ("_closing", "_count", "_items")

    def __init__(self, items: list[Item], count: int, closing: ResultItem | None = None) -> None:
        self._items = items
        self._count = count
        self._closing = closing

    def __len__(self) -> int:
        return self._count if self._closing is None else self._count + 1

    def __iter__(self) -> Iterator[Item]:
        mine = islice(self._items, self._count)
        return mine if self._closing is None else chain(mine, (self._closing,))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1 or stop <= self._count or self._closing is None:
                return self._items[start:stop] if step == 1 else [self[at] for at in range(start, stop, step)]
            return [*self._items[start : self._count], self._closing] if start <= self._count else []
        size = len(self)
        at = index + size if index < 0 else index
        if not 0 <= at < size:
            raise IndexError(f"item {index} of {size}")
        if at == self._count and self._closing is not None:
            return self._closing
        return self._items[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (_View, list, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{len(self)} items>"
