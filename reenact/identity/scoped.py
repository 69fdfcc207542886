"""A runtime as one tenant sees it: the same methods, acting in one scope and under one principal, and a bus of its own.

Whose a stream is was recorded when it began, and is compared where commands and looks are put to it (`actors.system`)
and where the log is read (`pane`). This file only says who is acting; it has no way to another scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, Unpack

from ..adapters.tools.acting import acting_as
from ..events.errors import BadInput, Refused
from ..events.message import BusEvent, Command, Context, Live
from ..events.request import TIMEOUT_S
from ..events.subscription import Filter, Handler, Subscription
from ..flow.kernel import Who
from ..run import Run
from ..runtime import Runtime
from ..secrets.discretion import discreet
from ..sender import MessageOptions
from .access import BY_HAND
from .bounds import Bounds
from .context import ExecutionContext, checked_context

if TYPE_CHECKING:
    from ..events.bus import SystemBus
    from ..events.queue import LiveView
    from ..events.view import Kind

_NOT_TENANTS = frozenset(("subscriber_failed",))
"""What is told of the program's own handlers."""


@discreet
class Acting(Runtime):
    """A view of a runtime. `context` is on whose behalf it acts; its trace is in the envelope of what it asks.

    What other scopes have is not there: not refused, not found. Cancelling the context's token cancels the jobs that
    were sent through it. Opening and closing are the runtime's own affair: here they do nothing.
    """

    def __init__(self, root: Runtime, bounds: Bounds) -> None:
        vars(self).update(vars(root))
        self._bounds = bounds
        context = self.context = bounds.context
        self._act(Who(context.scope_id, context.principal_id, context.traceparent if bounds.traced else None))
        self._submit = partial(self._cancelled_with_it, self._submit)
        self.bus: Any = ScopedBus(root.bus, bounds)

    async def open(self) -> Self:
        """Nothing: it is open as long as its runtime is."""
        return self

    async def close(self) -> None:
        """Nothing: who opened the runtime closes it."""

    dispose = close

    @property
    def log(self) -> Any:
        """What the log has of this scope, to read."""
        return self._reads

    def as_(self, context: ExecutionContext) -> Acting:
        """As `Runtime.as_`, within its own bounds: its policy and its cancellation hold for what is made too, its trace
        goes on, and the tighter limits of both budgets stand. Raises Refused for another scope, and for another
        principal where a token said whose this is; BadInput where the context names another policy.
        """
        return Acting(self._root, self._bounds.within(checked_context(context)))

    def scoped(self, *, scope: str | None = None, principal: str | None = None) -> Acting:
        """This view, acting for another principal of its scope, within the same bounds. Raises Refused, as `as_`."""
        if scope not in (None, self.scope):
            raise Refused("A view of one scope cannot become another's; ask the runtime itself.")
        return Acting(self._root, self._bounds.under(principal))

    async def ask(self, stream: str, command: Command, **more: Any) -> NoReturn:
        """Raises Refused: a command made by hand is the program's own, on the runtime itself."""
        raise Refused(BY_HAND)

    async def authenticate(self, token: str) -> NoReturn:
        """Raises Refused: who a caller is, is found out before there is a view."""
        raise Refused("Ask the runtime itself who shows a token.")

    async def send(
        self, image_id: str, content: object, *, session_id: str | None = None, **options: Unpack[MessageOptions]
    ) -> Run:
        """As `Runtime.send`, within the context's budget where the message names none of its own, and under the policy
        that the context names. Raises BadInput where the message brings another, NotFound where there is none.
        """
        return await super().send(image_id, content, session_id=session_id, **self._within(options))

    def sending(
        self, image_id: str, content: object, *, session_id: str | None = None, **options: Unpack[MessageOptions]
    ) -> asyncio.Future[Run]:
        """As `Runtime.sending`, likewise."""
        try:
            return super().sending(image_id, content, session_id=session_id, **self._within(options))
        except BadInput as error:
            sent: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
            sent.set_exception(error)
            return sent

    def _within(self, options: MessageOptions) -> MessageOptions:
        ref, own = self.context.policy_ref, options.get("policy")
        if ref is not None and own not in (None, ref):
            raise BadInput(f"This context is held to the policy {ref.name}: what narrows it stands in its overrides.")
        if own is None:
            options["policy"] = ref
        if options.get("budget") is None:
            options["budget"] = self.context.budgets
        return options

    async def request(self, kind: str, data: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S) -> Live:
        """As `Runtime.request`. A message: raises BadInput where the context names a policy or a budget, which `send`
        sends, and Cancelled where it is cancelled.
        """
        _check_request(self._bounds, kind)
        return await super().request(kind, data, timeout_s=timeout_s)

    def _cancelled_with_it(self, submit: Callable[..., Run], *args: Any, **options: Any) -> Run:
        """Submit a message; its job is cancelled when the context is."""
        tokens = self._bounds.tokens
        for token in tokens:
            token.check()
        run = submit(*args, **options)
        loop = asyncio.get_running_loop()

        def cancelled() -> None:
            reason = next((token.reason for token in tokens if token.cancelled), None)
            loop.call_soon_threadsafe(lambda: self._kernel.later(self._cancel(run, reason or "cancelled")))

        for token in tokens:
            run.on_end(token._hears(cancelled))
        return run

    async def _cancel(self, run: Run, reason: str) -> None:
        await run.accepted()
        await self.cancel(run.session_id, run.job_id, reason=reason)


class ScopedBus:
    """The bus as one scope hears it and asks over it: `SystemBus` documents each method.

    There is no way here to emit, to answer requests or to command a stream: that is the program's.
    """

    def __init__(self, bus: SystemBus, bounds: Bounds) -> None:
        self._bus = bus
        self._bounds = bounds
        self._scope = bounds.context.scope_id
        self._principal = bounds.context.principal_id

    def _hears(self, filter: Filter | None) -> Filter:
        scope = self._scope

        def hears(event: BusEvent) -> object:
            mine = event.context.scope == scope and event.type not in _NOT_TENANTS
            return mine and (filter is None or filter(event))

        return hears

    def _envelope(self) -> Context:
        return Context(self._scope, acting_as() or self._principal)

    @property
    def disposed(self) -> bool:
        """Whether the bus has ended."""
        return self._bus.disposed

    def on(
        self, kinds: Kind | Iterable[Kind], handler: Handler, *, filter: Filter | None = None, **options: Any
    ) -> Subscription:
        """Events of these types."""
        return self._bus.on(kinds, handler, filter=self._hears(filter), **options)

    def on_any(self, handler: Handler, *, filter: Filter | None = None, **options: Any) -> Subscription:
        """Events of every type."""
        return self._bus.on_any(handler, filter=self._hears(filter), **options)

    def once(
        self, kinds: Kind | Iterable[Kind], handler: Handler, *, filter: Filter | None = None, **options: Any
    ) -> Subscription:
        """The next event of these types."""
        return self._bus.once(kinds, handler, filter=self._hears(filter), **options)

    def stream(self, *kinds: Kind, filter: Filter | None = None, **options: Any) -> LiveView:
        """Events as an async iterator."""
        return self._bus.stream(*kinds, filter=self._hears(filter), **options)

    @property
    def observable(self) -> Any:
        """Every event, as a reactivex Observable."""
        return self._bus.observed(self._hears(None))

    async def past(self, position: int) -> int:
        """Wait until something of anybody's was told behind a position: when to read on."""
        return await self._bus.past(position)

    def emit_command(self, kind: str, data: Mapping[str, Any] | None = None) -> str:
        """Ask and do not wait."""
        _check_request(self._bounds, kind)
        return self._bus.emit_command(kind, data, context=self._envelope())

    async def request(self, kind: str, data: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S) -> Live:
        """Ask, and wait for the response."""
        _check_request(self._bounds, kind)
        return await self._bus.request(kind, data, timeout_s=timeout_s, context=self._envelope())


def _check_request(bounds: Bounds, kind: str) -> None:
    """What travels over the bus has scope and principal with it, and nothing else that binds a view."""
    if kind != "message_send_request":
        return
    context = bounds.context
    if context.policy_ref is not None:
        raise BadInput(f"This context is held to the policy {context.policy_ref.name}: use send(), not the bus.")
    if context.budgets is not None:
        raise BadInput("This context has a budget: use send(), not the bus.")
    for token in bounds.tokens:
        token.check()


__all__ = ["Acting", "ScopedBus"]
