"""The blocking twin: the same runtime for programs and notebooks without an event loop of their own.

It runs the loop in a thread of its own. Handlers given to `on` run there: keep them short.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from . import runtime as _async
from .actors.image import State as ImageState
from .actors.replay import Replay
from .events.errors import Closed, ReenactError, Refused
from .events.message import BusEvent, Live, Recorded
from .events.notice import Message
from .events.policy import Policy
from .events.request import TIMEOUT_S
from .events.secret import Secret
from .events.subscription import Subscription
from .identity.context import ExecutionContext
from .image import Image as AsyncImage
from .people.actions import ActionManager as _AsyncManager
from .people.actions import ActionRecord, ActionSpec
from .projections.actions import Action
from .rules.policies import Given
from .rules.tool_policy import AgentToolPolicy
from .run import UNREAD_MAX, Result
from .run import Run as AsyncRun
from .sender import MessageOptions

T = TypeVar("T")

_END = object()


class Runtime:
    """As `reenact.Runtime`, each call waiting for its end.

    with Runtime("sqlite:///agents.db", tools=[refund]) as runtime:
        bot = runtime.image("support", model="anthropic:claude-sonnet-5-5")
        for event in bot.send("Refund order 42"):
            print(event)
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._args = args
        self._options = options
        self._runtime: _async.Runtime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._watching: set[asyncio.Task[None]] = set()
        self._crowded: set[asyncio.Event] = set()
        self._closing = False
        self._closes = True

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> Self:
        """Start the loop's thread and open the runtime on it. Raises what `reenact.Runtime.open` raises."""
        if self._thread is None:
            loop = self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="reenact-loop", daemon=True)
            self._thread.start()
            try:
                self._runtime = self.wait(self._opened())
            except BaseException:
                self._stop()
                raise
        return self

    async def _opened(self) -> _async.Runtime:
        return await _async.Runtime(*self._args, **self._options).open()

    def close(self) -> None:
        """Close the runtime and end the thread. Idempotent."""
        if self._runtime is not None and self._closes:
            runtime, self._runtime = self._runtime, None
            try:
                self.wait(self._close(runtime))
            finally:
                self._stop()

    async def _close(self, runtime: _async.Runtime) -> None:
        self._closing = True
        for room in self._crowded:
            room.set()
        await runtime.close()

    def _soon(self, work: Callable[[], object]) -> None:
        """Have it done on the loop, if there still is one."""
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(work)

    def _stop(self) -> None:
        assert self._loop is not None and self._thread is not None
        asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = None

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of `asynchronous` on the runtime's loop, and give its result. For what has no twin here."""
        if self._loop is None or self._thread is None:
            work.close()
            raise Closed("The runtime is not open: use `with Runtime(...)`, or call `open()`.")
        if threading.current_thread() is self._thread:
            work.close()
            raise Refused(
                "A handler runs in the runtime's own thread, and would wait for itself here. Use"
                " `runtime.asynchronous` in an async handler, or hand the work to another thread."
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @property
    def asynchronous(self) -> _async.Runtime:
        """The runtime behind it, for use on its own loop. Raises Closed before `open`."""
        if self._runtime is None:
            raise Closed("The runtime is not open: use `with Runtime(...)`, or call `open()`.")
        return self._runtime

    def scoped(self, *, scope: str | None = None, principal: str | None = None) -> Runtime:
        """This runtime, acting for another scope or principal: see `reenact.Runtime.scoped`. Closing it: nothing."""
        return self._view(self.asynchronous.scoped(scope=scope, principal=principal))

    def as_(self, context: ExecutionContext) -> Runtime:
        """This runtime, acting on behalf of a context: see `reenact.Runtime.as_`. Closing it does nothing."""
        return self._view(self.asynchronous.as_(context))

    def _view(self, acting: _async.Runtime) -> Runtime:
        view = Runtime()
        vars(view).update(vars(self))
        view._runtime, view._closes = acting, False
        return view

    def secret(self, name: str, value: str | Secret) -> Secret:
        """Know a secret: see `reenact.Runtime.secret`."""
        return self.asynchronous.secret(name, value)

    def image(self, name: str | None = None, **fields: Any) -> Image:
        """The image of this name: see `reenact.Runtime.image`."""
        return Image(self, self.wait(self.asynchronous.image(name, **fields)))

    def open_image(self, image_id: str, session_id: str | None = None) -> Image:
        """A handle of an image that exists: see `reenact.Runtime.open_image`."""
        return Image(self, self.wait(self.asynchronous.open_image(image_id, session_id)))

    def update_image(self, image_id: str, changes: Mapping[str, Any]) -> ImageState:
        """Change some fields of an image's definition: see `reenact.Runtime.update_image`."""
        return self.wait(self.asynchronous.update_image(image_id, changes))

    def delete_image(self, image_id: str) -> None:
        """Delete an image and close its sessions: see `reenact.Runtime.delete_image`."""
        self.wait(self.asynchronous.delete_image(image_id))

    def new_session(self, image_id: str, *, alias: str | None = None) -> str:
        """A new session of an image, its current one from now on: see `reenact.Runtime.new_session`."""
        return self.wait(self.asynchronous.new_session(image_id, alias=alias))

    def set_policy(self, container: str, policy: Given | None) -> Policy | None:
        """Hold all agents of a container to a policy: see `reenact.Runtime.set_policy`."""
        return self.wait(self.asynchronous.set_policy(container, policy))

    def load_tool_policy(self, agent_id: str) -> AgentToolPolicy:
        """Which tools an agent's image allows it by name: see `reenact.Runtime.load_tool_policy`."""
        return self.wait(self.asynchronous.load_tool_policy(agent_id))

    def save_tool_policy(self, agent_id: str, changes: AgentToolPolicy | Mapping[str, Any]) -> AgentToolPolicy:
        """Change which tools an agent's image allows it: see `reenact.Runtime.save_tool_policy`."""
        return self.wait(self.asynchronous.save_tool_policy(agent_id, changes))

    def cancel(self, session_id: str, job_id: str, *, reason: str = "user_cancel") -> None:
        """Take a queued job out, or interrupt it where it runs: see `reenact.Runtime.cancel`."""
        self.wait(self.asynchronous.cancel(session_id, job_id, reason=reason))

    def resume(self, session_id: str) -> None:
        """Take up what one session owes: see `reenact.Runtime.resume`."""
        self.wait(self.asynchronous.resume(session_id))

    def request(self, kind: str, data: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S) -> Live:
        """Ask by name: see `reenact.Runtime.request`."""
        return self.wait(self.asynchronous.request(kind, data, timeout_s=timeout_s))

    def on(self, kinds: Any, handler: Callable[[Any], object], **options: Any) -> Subscription:
        """Subscribe; `handler` runs in the loop's thread, with `thread=True` in one of its own."""
        return self.asynchronous.on(kinds, handler, **options)

    def on_any(self, handler: Callable[[Any], object], **options: Any) -> Subscription:
        """Subscribe to everything; `handler` runs in the loop's thread, with `thread=True` in one of its own."""
        return self.asynchronous.on_any(handler, **options)

    def once(self, kinds: Any, handler: Callable[[Any], object], **options: Any) -> Subscription:
        """Subscribe to the next one; `handler` runs in the loop's thread, with `thread=True` in one of its own."""
        return self.asynchronous.once(kinds, handler, **options)

    def messages(self, session_id: str) -> list[Message]:
        """What was said in a session, oldest first."""
        return self.wait(self.asynchronous.messages(session_id))

    def events(self, session_id: str, *, after: int = 0) -> list[Recorded]:
        """The stored events of a session above a version."""
        return self.wait(self.asynchronous.events(session_id, after=after))

    def replay(self, session_id: str) -> Replay:
        """Decide a session again from the log: see `reenact.Runtime.replay`."""
        return self.wait(self.asynchronous.replay(session_id))

    def actions(self, session_id: str | None = None) -> list[Action]:
        """What waits for a person: see `reenact.Runtime.actions`."""
        return self.wait(self.asynchronous.actions(session_id))

    def action(self, action_id: str) -> Action:
        """One question and how it stands: see `reenact.Runtime.action`."""
        return self.wait(self.asynchronous.action(action_id))

    def resolve_action(self, action_id: str, resolution: Mapping[str, Any] | bool, **options: Any) -> Action:
        """Answer a question, once: see `reenact.Runtime.resolve_action`."""
        return self.wait(self.asynchronous.resolve_action(action_id, resolution, **options))

    def cancel_action(self, action_id: str, *, reason: str = "cancelled", cancel_job: bool = False) -> Action:
        """Take a question back: see `reenact.Runtime.cancel_action`."""
        return self.wait(self.asynchronous.cancel_action(action_id, reason=reason, cancel_job=cancel_job))

    def issue_token(self, action_id: str) -> str:
        """A token that resolves a question once: see `reenact.Runtime.issue_token`."""
        return self.wait(self.asynchronous.issue_token(action_id))

    def resolve(self, session_id: str, tool: str, outcome: str, output: str = "") -> None:
        """Say what became of a call in doubt: see `reenact.Runtime.resolve`."""
        self.wait(self.asynchronous.resolve(session_id, tool, outcome, output))


class ActionManager:
    """As `reenact.ActionManager`, each call waiting for its end."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._manager = _AsyncManager(runtime.asynchronous)

    def require_action(self, spec: ActionSpec | Mapping[str, Any]) -> ActionRecord:
        """Put a question to a person."""
        return self._runtime.wait(self._manager.require_action(spec))

    def resolve(
        self, *, resolution: Mapping[str, Any], resume_token: str | None = None, action_id: str | None = None
    ) -> ActionRecord:
        """Answer a question, once, by its token or by its id."""
        work = self._manager.resolve(resolution=resolution, resume_token=resume_token, action_id=action_id)
        return self._runtime.wait(work)

    def cancel(self, action_id: str, reason: str = "cancelled", *, cancel_job: bool = False) -> ActionRecord:
        """Take a question back."""
        return self._runtime.wait(self._manager.cancel(action_id, reason, cancel_job=cancel_job))

    def wait_for_resolution(
        self, action_id: str, timeout: float | None = None, poll_interval: float | None = None
    ) -> ActionRecord:
        """Wait until a question is answered. Raises as `reenact.ActionManager.wait_for_resolution`."""
        return self._runtime.wait(self._manager.wait_for_resolution(action_id, timeout, poll_interval))

    def list_pending(self, job_id: str | None = None) -> list[ActionRecord]:
        """Those that wait, oldest first."""
        return self._runtime.wait(self._manager.list_pending(job_id))


class Image:
    """As `reenact.Image`, each call waiting for its end."""

    def __init__(self, runtime: Runtime, image: AsyncImage) -> None:
        self._runtime = runtime
        self._image = image
        self.id = image.id
        self.session_id = image.session_id
        self.container_id = image.container_id

    def send(self, content: object, **options: Unpack[MessageOptions]) -> Run:
        """Send a message: iterate the run for its events, or ask it for its `result()`. Raises what refuses it."""
        return self._runtime.wait(self._sent(content, options))

    async def _sent(self, content: object, options: MessageOptions) -> Run:
        run = Run(self._runtime, await self._image.send(content, **options).run())
        run._watch()  # from the first signal on, however late it is iterated
        await run._run.accepted()
        return run

    def interrupt(self, reason: str = "user_interrupt") -> None:
        """Stop the running turn; what was said by then is kept."""
        self._runtime.wait(self._image.interrupt(reason))

    def stop(self) -> None:
        """Put the agent to sleep."""
        self._runtime.wait(self._image.stop())

    def messages(self) -> list[Message]:
        """What was said, oldest first."""
        return self._runtime.wait(self._image.messages())

    def events(self) -> list[Recorded]:
        """The session's stored events, oldest first."""
        return self._runtime.wait(self._image.events())


class Run:
    """As `reenact.Run`: iterate it, or wait for its result; the job goes on either way."""

    def __init__(self, runtime: Runtime, run: AsyncRun) -> None:
        self._runtime = runtime
        self._run = run
        self._seen: queue.SimpleQueue[Any] | None = None
        self._reading: queue.SimpleQueue[Any] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self.job_id = run.job_id
        self.session_id = run.session_id

    def result(self, timeout_s: float | None = None) -> Result:
        """How it ended. Raises TimeoutError when `timeout_s` is over: the job goes on then."""
        return self._runtime.wait(self._run.result(timeout_s))

    def leave(self) -> None:
        """Answer none of its questions any more, where it was sent to be answered by whoever reads it."""
        self._runtime.wait(self._left())

    async def _left(self) -> None:
        self._run.leave()
        await self._runtime.asynchronous._kernel.telling.look(self.session_id)

    def fail(self, error: ReenactError) -> None:
        """On the loop: whoever waits for it is told that its end will not come. What is owed stays owed in the log."""
        self._run.fail(error)

    def __iter__(self) -> Iterator[BusEvent]:
        """Its events and signals from the first on; at a second time, of what is past only the stored ones."""
        seen, self._seen = self._seen, None
        if seen is None:
            seen = self._runtime.wait(self._watched())
            self._seen = None
        self._reading = seen
        while (event := seen.get()) is not _END:
            if not self._room.is_set() and seen.qsize() < UNREAD_MAX // 2:
                self._runtime._soon(self._room.set)
            if isinstance(event, BaseException):
                raise event
            yield event

    def _quit(self) -> bool:
        """Have whoever reads its events raise KeyboardInterrupt, behind what is to be read yet. False: nobody does. A
        handler of signals may call it."""
        if self._reading is not None:
            self._reading.put(KeyboardInterrupt())
        return self._reading is not None

    async def _watched(self) -> queue.SimpleQueue[Any]:
        return self._watch()

    def _watch(self) -> queue.SimpleQueue[Any]:
        """On the loop: begin to collect what it tells."""
        seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._seen = seen
        watching = self._runtime._watching
        task = asyncio.ensure_future(self._collect(seen))
        watching.add(task)
        task.add_done_callback(watching.discard)
        return seen

    async def _collect(self, seen: queue.SimpleQueue[Any]) -> None:
        try:
            async for event in self._run:
                seen.put(event)
                if seen.qsize() >= UNREAD_MAX and not self._runtime._closing:
                    await self._room_for_more()
        except Exception as error:
            seen.put(error)
        finally:
            seen.put(_END)

    async def _room_for_more(self) -> None:
        """Wait for a slow reader. Meanwhile the run drops what is only live, and keeps what is stored."""
        self._room.clear()
        self._runtime._crowded.add(self._room)
        await self._room.wait()
        self._runtime._crowded.discard(self._room)
