"""Approval handlers: programs that say of calls which need approval whether they may run, in the place of a person.

Whatever is no clear yes is no; what cannot be recorded is left to a person.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ..adapters.tools.threads import ToolThreads
from ..catalog.unreadable import passed_over
from ..events.action import HANDLER, ActionRequired
from ..events.errors import ActionLate, ActionOver, BadInput, Closed, NotFound
from ..events.log import Log
from ..events.message import Recorded
from ..given import TIMEOUT_MAX_S
from ..projections.actions import Action
from ..projections.asking import asking
from ..run import READER, Brought
from .asking import parts_of

if TYPE_CHECKING:
    from ..identity.access import Access
    from ..runtime import Runtime
    from .asking import Asking

HANDLER_TIMEOUT_S = 300.0
"""Seconds that an approval handler has for one question, unless its runtime says otherwise. Then the answer is no."""

_log = logging.getLogger("reenact")


class ApprovalRequest(Struct, frozen=True, kw_only=True, rename="camel"):
    """What an approval handler is given: one call that may not run before somebody says so.

    id: `<session>:<action>`. tool_id: the tool's name. params: all arguments it would run with. text: the question as
    a person should read it. timestamp, expires_at: milliseconds since 1970-01-01 UTC.
    """

    id: str
    tool_id: str
    reason: str
    params: dict[str, Any]
    timestamp: int
    expires_at: int
    session_id: str
    job_id: str | None
    text: str


ApprovalHandler = Callable[[ApprovalRequest], Awaitable[bool] | bool]
"""Says whether a call may run: only True is yes. One that is not async has a thread of its own, one call at a time."""

_NO_HANDLER = "An approval handler is brought by people and programs, never by an agent or its tools."


def brought(handler: ApprovalHandler | None, access: Access) -> Any:
    """A handler as a run or a runtime keeps it. Raises NotAPerson where an agent or a tool brings it."""
    if handler is None:
        return None
    access.check_person(_NO_HANDLER)
    return handler if handler is READER else Brought(handler)


class Handlers:
    """Those at work on a runtime's log, in all scopes. handler: decides where a run brings none of its own. timeout_s:
    what each has for one question. Raises BadInput."""

    def __init__(self, runtime: Runtime, handler: Brought | None, timeout_s: float) -> None:
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= TIMEOUT_MAX_S:
            raise BadInput(f"handler_timeout_s must be above 0 and at most {TIMEOUT_MAX_S:,}, not {timeout_s!r}.")
        self._runtime = runtime
        self._handler = handler
        self._timeout_s = timeout_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._one = asyncio.Lock()

    def hear(self, recorded: Recorded, data: ActionRequired) -> None:
        """A question was put, in any scope: the approval of a call goes to the handler of its run, else to the
        runtime's. Whether a model may be asked, a person says."""
        if data.kind != "approval" or data.digest is None or data.tool is None:
            return
        session_id = recorded.stream.removeprefix("session-")
        handler = self._runtime._kernel.runs.handler_of(session_id, data.job_id or "") or self._handler
        if isinstance(handler, Brought):
            questions = self._runtime._of_scope(recorded.head.context.scope)._asking
            self._begin(questions, f"{session_id}:{data.action}", handler)

    async def take_up(self) -> None:
        """Put what waits since an earlier owner to the runtime's handler, of all scopes."""
        if self._handler is None:
            return
        for scope in await asyncio.to_thread(_owing_scopes, self._runtime.log):
            questions = self._runtime._of_scope(scope)._asking
            for action in await questions.pending():
                if action.type == "approval" and action.call is not None:
                    self._begin(questions, action.id, self._handler)

    def _begin(self, questions: Asking, action_id: str, by: Brought) -> None:
        in_hand = self._runtime._kernel.telling.in_hand
        if action_id in in_hand:
            return
        in_hand.add(action_id)
        task = by.task(self._handle(questions, action_id, by.handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, questions: Asking, action_id: str, handler: ApprovalHandler) -> None:
        """Ask the handler, and record what it says. What cannot be recorded is left to a person."""
        kernel = self._runtime._kernel
        try:
            action = await questions.action(action_id)
            if action.status == "pending":
                self._runtime._access.check_person(_NO_HANDLER)
                given = await self._asked(action, handler)
                if given is not None:
                    await questions.resolve(action_id, given, shown=action.digest, by=principal_of(handler))
        except (ActionOver, ActionLate, NotFound, Closed):
            pass
        except Exception as error:
            _log.error("what the approval handler says of %s could not be recorded: %s", action_id, error)
            kernel.telling.in_hand.discard(action_id)
            kernel.later(kernel.telling.look(parts_of(action_id)[0]))
        finally:
            kernel.telling.in_hand.discard(action_id)

    async def _asked(self, action: Action, handler: ApprovalHandler) -> dict[str, Any] | None:
        """What a handler says of a question, as it is recorded: whatever is no clear yes is no. None where the question
        is over before it has said anything."""
        if _is_async(handler):
            return await self._within(action, handler)
        async with self._one:  # two that ask at one terminal would not be understood
            return await self._within(action, handler)

    async def _within(self, action: Action, handler: ApprovalHandler) -> dict[str, Any] | None:
        left_s = max(0.0, (action.expires_at - self._runtime.clock.now() // 1000) / 1000)
        limit_s = self._timeout_s
        said = asyncio.ensure_future(_said(handler, request_of(action)))
        try:
            await asyncio.wait({said}, timeout=min(left_s, limit_s))
        finally:
            if not said.done():
                said.cancel()
        if not said.done():
            if left_s <= limit_s:
                return None
            _log.error("the approval handler did not answer %s in %g s", action.id, limit_s)
            return _no(f"The approval handler did not answer in {limit_s:g} seconds.")
        answer = said.result()
        if isinstance(answer, BaseException):
            _log.error("the approval handler failed at %s", action.id, exc_info=answer)
            return _no(f"The approval handler failed: {type(answer).__name__}.")
        if not isinstance(answer, bool):
            _log.error("the approval handler answered %s with %s, and not with True or False", action.id, type(answer))
            return _no(f"The approval handler gave no answer, but {type(answer).__name__}.")
        return {"approved": answer}

    async def close(self) -> None:
        """Ask nobody any more: what waits goes on waiting."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)


def principal_of(handler: ApprovalHandler) -> str:
    """Under whose name it stands what a handler said: `handler:<its name>`, `handler` where it has none."""
    name = str(getattr(handler, "__name__", ""))
    return f"{HANDLER}:{name}" if name.isidentifier() else HANDLER


def _is_async(handler: ApprovalHandler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def _owing_scopes(log: Log) -> list[str]:
    """The scopes in which something is owed."""
    scopes: dict[str, None] = {}
    for stream in log.streams("session-", owing=True):
        with passed_over(stream):
            scopes |= {first.batch.head.context.scope: None for first in log.read(stream, limit=1)}
    return list(scopes)


async def _said(handler: ApprovalHandler, request: ApprovalRequest) -> object:
    """What a handler says, or what it raises, whatever that is: no handler ends the program."""
    threads = None if _is_async(handler) else ToolThreads(1, name="reenact-handler")
    try:
        said: object = (
            handler(request) if threads is None else await asyncio.wrap_future(threads.submit(handler, request))
        )
        return await said if inspect.isawaitable(said) else said
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    finally:
        if threads is not None:
            threads.shutdown()


def _no(comment: str) -> dict[str, Any]:
    return {"approved": False, "comment": comment}


def request_of(action: Action) -> ApprovalRequest:
    """An approval as a handler is given it."""
    assert action.call is not None
    return ApprovalRequest(
        id=action.id,
        tool_id=action.call.name,
        reason=action.reason,
        params=action.call.arguments,
        timestamp=action.asked_at,
        expires_at=action.expires_at,
        session_id=action.session_id,
        job_id=action.job_id,
        text="\n".join(asking(action)),
    )
