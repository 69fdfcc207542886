"""What can be read of a log without owning it: sessions, images, jobs, messages, events, replays, money, audit.

Every answer is plain rows, keys in camel case, from the log as it stands now. Nothing is written.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, get_args

import msgspec

from ..adapters.logs import open_reader
from ..catalog import lookup
from ..catalog.unreadable import passed_over, view_of
from ..events import codec
from ..events.action import ActionRequired, ActionResolved
from ..events.agent import ModelAnswered, ToolRequested, ToolSettled, ToolStarted, ToolUnproved
from ..events.content import ToolCall
from ..events.errors import BadInput, NotFound, StoreError
from ..events.image import ImageCreated, ImageDeleted, ImageUpdated
from ..events.log import Log, Stored
from ..events.message import Recorded
from ..identity.pane import Pane
from ..projections.jobs import ACTIVE, Job, Jobs
from ..projections.projection import catch_up, catch_up_stream

if TYPE_CHECKING:
    from ..projections.actions import Action, Actions
    from ..projections.duck import Answer
    from ..projections.transcript import Transcript

Row = dict[str, Any]

PAGE = 1000
"""Batches read at a time."""

POLL_S = 0.1
"""How often a follower looks for something new: another process tells nobody when it appends."""

SQL_S = 60.0
"""How long a query may take."""

BATCH_EVENTS_MAX = 1000
"""Events before a position among which the beginning of its batch is looked for."""


_NUMBER = re.compile("a[0-9]{1,6}")
"""The name of a question within its session; as hex digits it could be the end of an id, of which more is shown."""


class Reading:
    """A log opened for reading. With a URL it opens the file beside its owner, and `with` closes it again.

    scope: only what belongs to this one; without it everything, for whoever can read the file can read all of it.
    """

    def __init__(self, log: str | Log, *, scope: str | None = None) -> None:
        self._whole: Any = open_reader(log) if isinstance(log, str) else None
        opened: Any = log if self._whole is None else self._whole
        self.log: Any = opened if scope is None else Pane(opened, scope)
        self._names: dict[str, str] | None = None
        self._board: Jobs | None = None
        self._lost: set[str] = set()  # the streams that could not be read to their end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._whole is not None:
            self._whole.close()

    # -- what there is --

    def session(self, wanted: str) -> str:
        """The id of a session: see `lookup.session_of`."""
        return lookup.session_of(self.log, wanted)

    def jobs(self, *, over: bool = False, session: str | None = None) -> list[Row]:
        """The jobs, running first, then queued, then waiting, then, where `over`, those that ended, newest first."""
        session_id = None if session is None else self.session(session)
        found = [job for job in self.board().query(session_id=session_id) if over or job.state in ACTIVE]
        if self._lost:  # then they are not in the order of the log, and of what cannot be read nobody knows how it is
            found = [job for job in found if f"session-{job.session_id}" not in self._lost]
            found.sort(key=lambda job: job.queued_at, reverse=True)
        found.sort(key=lambda job: _ORDER.get(job.state, len(_ORDER)))
        return [self._job(job) for job in found]

    def board(self) -> Jobs:
        """Every job of the log."""
        if self._board is None:
            self._board, self._lost = view_of(self.log, Jobs)
        return self._board

    def _job(self, job: Job) -> Row:
        return {**msgspec.to_builtins(job), "imageName": self._image_names().get(job.image_id or "")}

    def sessions(self, *, empty: bool = False) -> list[Row]:
        """The sessions, newest first; those in which nothing was ever asked only where `empty`. One that cannot be read
        has the state `unreadable`.
        """
        jobs: dict[str, list[Job]] = {}
        for job in self.board():
            jobs.setdefault(job.session_id, []).append(job)  # newest first
        rows = []
        for session_id in reversed(lookup.session_ids(self.log)):
            of_session, lost = jobs.get(session_id, []), f"session-{session_id}" in self._lost
            if not (of_session or empty or lost):
                continue
            created = lookup.session_created(self.log, session_id)
            newest = of_session[0] if of_session else None
            rows.append(
                {
                    "sessionId": session_id,
                    "name": created.alias if created else None,
                    "imageId": created.image_id if created else None,
                    "imageName": self._image_names().get(created.image_id) if created else None,
                    "containerId": created.container_id if created else None,
                    "createdAt": created.created_at if created else None,
                    "events": self.log.head(f"session-{session_id}"),
                    "jobs": len(of_session),
                    "state": "unreadable" if lost else newest.state if newest else None,
                    "title": newest.title if newest else None,
                }
            )
        return rows

    def images(self) -> list[Row]:
        """The images that were not deleted, newest first."""
        sessions: dict[str, int] = {}
        for session_id in lookup.session_ids(self.log):
            created = lookup.session_created(self.log, session_id)
            if created is not None:
                sessions[created.image_id] = sessions.get(created.image_id, 0) + 1
        rows = []
        for stream in reversed(self.log.streams("image-")):
            row: Row = {}
            for recorded in self._readable(stream):
                match recorded.data:
                    case ImageCreated() as made:
                        row = {
                            "imageId": made.image_id,
                            "name": made.config.name,
                            "containerId": made.container_id,
                            "version": 1,
                            "createdAt": made.created_at,
                            "updatedAt": made.created_at,
                            "config": msgspec.to_builtins(made.config),
                        }
                    case ImageUpdated() as changed:
                        row |= {
                            "name": changed.config.name,
                            "version": changed.version,
                            "updatedAt": changed.updated_at,
                            "config": msgspec.to_builtins(changed.config),
                        }
                    case ImageDeleted():
                        row = {}
            if row:
                row["model"] = row["config"]["model"]
                row["sessions"] = sessions.get(row["imageId"], 0)
                rows.append(row)
        return rows

    def _image_names(self) -> dict[str, str]:
        if self._names is None:
            self._names = {row["imageId"]: row["name"] for row in self.images()}
        return self._names

    # -- one session --

    def messages(self, session_id: str) -> list[Row]:
        """What was said, oldest first."""
        return [
            {"type": message.type, **msgspec.to_builtins(message), "sessionId": session_id}
            for message in self._transcript(session_id).messages
        ]

    def conversation(self, session_id: str) -> list[str]:
        """The same as lines for a person, in the time of this machine."""
        return self._transcript(session_id).reader_lines(zone=zone_here())

    def _transcript(self, session_id: str) -> Transcript:
        from ..projections.transcript import Transcript

        transcript = Transcript()
        catch_up_stream(self.log, f"session-{session_id}", transcript)
        return transcript

    def calls(self, session_id: str) -> list[Row]:
        """The calls of tools that are not over: tool, name, input (what it runs with, where a person changed it), and
        doubt: only a person can settle it."""
        answers: dict[str, tuple[Any, ...]] = {}
        calls: dict[str, Row] = {}
        asked_of: dict[str, str] = {}
        for recorded in self._of(f"session-{session_id}"):
            match recorded.data:
                case ModelAnswered(call=call, parts=parts):
                    answers = {call: parts}
                case ToolRequested() as asked:
                    parts = answers.get(asked.call, ())
                    part = parts[asked.part] if asked.part < len(parts) else None
                    given = part.input if isinstance(part, ToolCall) else {}
                    calls[asked.tool] = {"tool": asked.tool, "name": asked.name, "input": given, "doubt": False}
                case ActionRequired(action=action, tool=str(tool), digest=str()):
                    asked_of[action] = tool
                case ActionResolved(action=action, resolution={"arguments": dict(arguments)}):
                    if asked_of.get(action) in calls:
                        calls[asked_of[action]]["input"] = arguments
                case ToolUnproved(tool=tool) | ToolStarted(tool=tool):
                    if tool in calls:
                        calls[tool]["doubt"] = isinstance(recorded.data, ToolUnproved)
                case ToolSettled(tool=tool):
                    calls.pop(tool, None)
        return list(calls.values())

    # -- questions to people --

    def actions(self, *, over: bool = False, session_id: str | None = None) -> list[Row]:
        """What waits for a person, oldest first; where `over`, also what did."""
        found = list(self._asked(session_id)) if session_id is not None else self._all_asked()
        return [msgspec.to_builtins(action) for action in found if over or action.status == "pending"]

    def action(self, wanted: str) -> tuple[Row, list[str]]:
        """One question, and the same as a person reads it. wanted: `<session>:<action>` with any unique part of the
        session, or only one of the two where no other question, waiting or over, is called so. A part of a session
        alone must be as long as it is shown. Raises NotFound, and BadInput where several fit.
        """
        from ..projections.asking import asking

        action = self._action(wanted)
        return msgspec.to_builtins(action), asking(action, zone=zone_here())

    def _action(self, wanted: str) -> Action:
        session, colon, number = wanted.rpartition(":")
        if colon and session:
            session_id = self.session(session)
            found = self._asked(session_id).get(f"{session_id}:{number}")
            if found is None:
                raise NotFound(f"Session {lookup.short(session_id)} has no action {number[:20]!a}.")
            return found
        # What is over counts too: consent must not go to what a word came to mean after somebody read of another.
        fitting = self._called(wanted, list(self._asked(None)))
        _check_one(wanted, [each.id for each in sorted(fitting, key=lambda each: each.status != "pending")])
        if not fitting:
            raise NotFound(f"No question to a person is called {wanted[:60]!a}. See: reenact approvals")
        return fitting[0]

    def _called(self, wanted: str, actions: Sequence[Action]) -> list[Action]:
        """Those that a word could mean, by their own name or by that of their session."""
        fitting = [action for action in actions if wanted in (action.id.rpartition(":")[2], action.session_id)]
        if not fitting and not _NUMBER.fullmatch(wanted):
            # Consent must not go to a question because a word that is no name happens to end its session's id.
            with suppress(NotFound):
                called = lookup.session_to_open(self.log, wanted)
                fitting = [action for action in actions if action.session_id == called]
        return fitting

    def grants(self, *, revoked: bool = False) -> list[Row]:
        """What people allowed for calls to come, oldest first; where `revoked`, also what they took back.

        digest: over what must be the same for a call to run on it; None where it was taken back.
        """
        from ..actors.cell import fold
        from ..actors.conversation import CONVERSATION
        from ..projections.actions import Actions

        board, lost = view_of(self.log, Actions)
        leaves = [leave for leave in board.leaves(revoked=revoked) if f"session-{leave.session_id}" not in lost]
        digests: dict[str, str] = {}
        for session_id in dict.fromkeys(leave.session_id for leave in leaves):
            agent = fold(CONVERSATION, list(self._of(f"session-{session_id}")))[1]
            digests |= {f"{session_id}:{grant.action}": grant.digest for grant in agent.consent.grants}
        return [{**msgspec.to_builtins(leave), "digest": digests.get(leave.id)} for leave in leaves]

    def grant(self, wanted: str) -> Row:
        """One that holds, by its action's name: `<session>:<action>`, or one of the two. Raises NotFound, BadInput."""
        session, colon, number = wanted.rpartition(":")
        rows = self.grants()
        if colon and session:
            session_id = self.session(session)
            fitting = [row for row in rows if row["id"] == f"{session_id}:{number}"]
        else:
            fitting = [row for row in rows if wanted in (row["id"].rpartition(":")[2], row["sessionId"])]
            if not fitting and len(wanted) >= lookup.SHOWN_DIGITS:
                fitting = [row for row in rows if row["sessionId"].endswith(wanted)]
        _check_one(wanted, [row["id"] for row in fitting])
        if not fitting:
            raise NotFound(f"Nothing that is allowed for good is called {wanted[:60]!a}. See: reenact approvals grants")
        return fitting[0]

    def _asked(self, session_id: str | None) -> Actions:
        from ..projections.actions import Actions

        if session_id is None:
            return view_of(self.log, Actions)[0]
        board = Actions()
        catch_up_stream(self.log, f"session-{session_id}", board)
        return board

    def _all_asked(self) -> list[Action]:
        from ..people.asking import all_asked

        return all_asked(self.log)

    def size(self, session_id: str) -> int:
        """How many events a session has."""
        head: int = self.log.head(f"session-{session_id}")
        return head

    def replay(self, session_id: str, *, progress: Callable[[int], object] | None = None) -> Row:
        """Decide the session again and compare. progress: hears how many events have been re-driven."""
        from ..actors.replay import replay

        stream = f"session-{session_id}"
        step = None if progress is None else lambda recorded, _: progress(recorded[-1].version)
        verdict = replay(stream, self._batches(stream), step=step)
        row: Row = {
            "identical": verdict.identical,
            "events": verdict.events,
            "network_calls": verdict.network_calls,
            "session_id": session_id,
        }
        if verdict.erased:
            row["erased"] = verdict.erased
        if verdict.first_difference is not None:
            row["first_difference"] = msgspec.to_builtins(verdict.first_difference)
        return row

    def export(self, session_id: str) -> Iterator[Row]:
        """The session as lines of a file: see `export`."""
        from .. import __version__
        from .export import lines_of

        return lines_of(session_id, self._of(f"session-{session_id}"), release=__version__)

    # -- money and audit --

    def budgets(self) -> list[Row]:
        """Every limit of every scope, with what is used of it, set aside and left."""
        from ..actors.cell import fold
        from ..actors.conversation import CONVERSATION
        from ..actors.ledger import LEDGER
        from ..events.budget import NOTHING
        from ..money.uses import uses

        rows = []
        for stream in self.log.streams("ledger-"):
            [state] = fold(LEDGER, self._readable(stream))
            holding = [session_id for session_id, account in state.accounts.items() if account.held != NOTHING]
            purses = {each: fold(CONVERSATION, self._readable(f"session-{each}"))[1].purse for each in holding}
            now = time.time_ns() // 1000
            scope = stream.removeprefix("ledger-")
            rows += [{"scope": scope, **msgspec.to_builtins(use)} for use in uses(state, purses, now)]
        return rows

    def cost(self, by: str, *, prices: str | None = None) -> list[Row]:
        """What was used and what it cost, by day, model, session, image, tool or another group of the ledger.

        prices: a file with another table, by which every call is priced anew. Raises BadInput for a group that there is
        none of, and for a file that is no table.
        """
        from ..adapters.prices import table_of
        from ..projections.ledger import Ledger

        if by == "tool" and prices is not None:
            raise BadInput("Tools have no price: --prices goes with every other group of --by.")
        table = None if prices is None else table_of(prices)
        ledger, _ = view_of(self.log, lambda: Ledger(table))
        if by == "tool":
            return [msgspec.to_builtins(line) for line in ledger.tools()]
        lines = []
        for spend in ledger.query(by):  # type: ignore[arg-type]
            line = {name: value for name, value in msgspec.to_builtins(spend).items() if value is not None}
            line["amount"] = spend.amount
            if spend.image_id is not None:
                line["imageName"] = self._image_names().get(spend.image_id)
            lines.append(line)
        return lines

    def audit(self, *, session: str | None = None, **filters: Any) -> list[Row]:
        """The audit's records that pass the filters of `projections.audit.AuditFilter`, oldest first.

        Raises BadInput for a type or a status that no record has.
        """
        from ..projections.audit import NAMES, AuditFilter, AuditLog
        from ..projections.notes.note import Status

        _check_types(filters.get("types") or (), {*NAMES, *codec.TYPES})
        status = filters.get("status")
        if status is not None and status not in get_args(Status):
            raise BadInput(f"There is no status {status[:60]!a}. There are: {', '.join(get_args(Status))}.")
        session_id = None if session is None else self.session(session)
        audit = AuditLog()
        catch_up(self.log, audit)
        return [msgspec.to_builtins(record) for record in audit.query(AuditFilter(session_id=session_id, **filters))]

    def sql(self, query: str, *, progress: Callable[[int, int], object] | None = None) -> Answer:
        """What one SELECT over the tables of `projections.tables` finds.

        The tables are kept in a file beside the log, for this user alone, so that the next query takes over only what
        is new; where another process has that file, or none can be made, they are made in memory. progress: hears of
        events done and to do. Raises BadQuery.
        """
        from ..projections.duck import MEMORY, DuckProjection

        path = getattr(self.log, "path", None)
        mask = os.umask(0o077)
        try:
            try:
                tables = DuckProjection(MEMORY if path is None else f"{path}.duckdb")
            except StoreError:
                tables = DuckProjection()
            with tables:
                tables.catch_up(self.log, progress=progress)
                return tables.sql(query, timeout_s=SQL_S)
        finally:
            os.umask(mask)

    # -- events --

    def events(
        self,
        *,
        session: str | None = None,
        types: Collection[str] = (),
        after: int = 0,
        limit: int | None = None,
        follow: bool = False,
    ) -> Iterator[Recorded]:
        """The stored events behind position `after`, oldest first; `follow` waits for more and never ends.

        Raises BadInput for a type that no event of this release has.
        """
        _check_types(types, codec.TYPES)
        stream = None if session is None else f"session-{self.session(session)}"
        left = -1 if limit is None else limit
        for recorded in self._stored(stream, frozenset(types), after, follow):
            if left == 0:
                return
            left -= 1
            yield recorded
            if left == 0:
                return

    def _stored(self, stream: str | None, types: frozenset[str], after: int, follow: bool) -> Iterator[Recorded]:
        # A batch is found by its first event, and `after` may lie within one.
        at = max(0, after - BATCH_EVENTS_MAX) if stream is None else 0
        while True:
            page = self._page(stream, at)
            for stored in page:
                batch = stored.batch
                at = batch.last if stream is not None else stored.position + len(batch.rows) - 1
                if not types or any(row.type in types for row in batch.rows):
                    for recorded in codec.unpack(stored):
                        if recorded.position > after and (not types or recorded.type in types):
                            yield recorded
            if not page:
                if not follow:
                    return
                time.sleep(POLL_S)

    def _page(self, stream: str | None, at: int) -> list[Stored]:
        page: list[Stored] = (
            self.log.read_all(after=at, limit=PAGE) if stream is None else self.log.read(stream, after=at, limit=PAGE)
        )
        return page

    def _batches(self, stream: str) -> Iterator[Stored]:
        at = 0
        while page := self._page(stream, at):
            yield from page
            at = page[-1].batch.last

    def _of(self, stream: str) -> Iterable[Recorded]:
        for stored in self._batches(stream):
            yield from codec.unpack(stored)

    def _readable(self, stream: str) -> list[Recorded]:
        """The events of a stream that is one of many; none where it cannot be read: see `passed_over`."""
        found: list[Recorded] = []
        with passed_over(stream):
            found = list(self._of(stream))
        return found


def _check_one(wanted: str, action_ids: Sequence[str]) -> None:
    """Raises BadInput where a word could mean several."""
    if len(action_ids) > 1:
        shown = ", ".join(map(_shown, action_ids[:6]))
        raise BadInput(f"{wanted[:60]!a} could be any of {len(action_ids)}: {shown}.")


def _shown(action_id: str) -> str:
    """An action's name as people are shown it."""
    session_id, _, number = action_id.rpartition(":")
    return f"{lookup.short(session_id)}:{number}"


_ORDER = {"running": 0, "queued": 1, "waiting": 2}


def _check_types(types: Iterable[str], known: Collection[str]) -> None:
    unknown = sorted(set(types) - set(known))
    if unknown:
        raise BadInput(f"There is no event type {unknown[0][:60]!a}. There are: {', '.join(sorted(known))}.")


def zone_here() -> tzinfo:
    """The time zone of this machine, for what people read."""
    return datetime.now().astimezone().tzinfo or UTC
