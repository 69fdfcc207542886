"""Tools run for an agent: one attempt, a look before an approved one starts, a doubt put to the world."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..actors.dispatch import Unstorable
from ..actors.policy import only_tools
from ..adapters.tools.acting import acting
from ..adapters.tools.context import ToolContext, Waiting
from ..adapters.tools.registry import Tools
from ..adapters.tools.runner import probe as probe_tool
from ..adapters.tools.runner import run as run_tool
from ..adapters.tools.threads import ToolThreads
from ..events.agent import CancelEffect, LaunchTool, ProbeTool, ProveTool, RunTool, SettleTool, StartTool
from ..events.failpoint import failpoint
from ..events.message import Command
from ..events.stream import ToolProgress

if TYPE_CHECKING:
    from ..actors.image import State as ImageState
    from ..catalog.definitions import Definitions
    from ..events.policy import Policy
    from ..flow.kernel import Kernel
    from ..flow.live import LiveSession
    from .places import Places

THREADS_MAX = 32
"""Threads of a runtime for tools that block; one more call waits for one."""

Actions = Callable[[tuple[str, str | None, str, str], Waiting, str], Any]
"""actions(call, waiting, scope): what a call of a tool puts its questions to people with, see `actions.ActionManager`.
"""

INTERRUPTED = "Stopped while it ran: the turn was interrupted."
UNKNOWN = "Stopped while it ran: it is not known whether it took effect."
NOT_RUN = "Not run: the turn was stopped before this call began."


class ToolCalls:
    """The calls of tools, and one thread pool for those that block."""

    def __init__(
        self, kernel: Kernel, definitions: Definitions, places: Places, *, tools: Tools, actions: Actions
    ) -> None:
        self._clock = kernel.clock
        self._vault = kernel.vault
        self._session, self._emit = kernel.telling.session, kernel.telling.signal
        self._image = definitions.image
        self._places = places
        self._tools = tools
        self._actions = actions
        self._threads: ToolThreads | None = None

    async def run(self, stream: str, effect: RunTool) -> Command:
        """Run it once. Cancelled: stop it, and tell that."""
        tool = self._tools.get(effect.name)
        if tool is None:
            message = f"There is no tool named {effect.name!r} any more. Nothing was run."
            return SettleTool(tool=effect.id, outcome="error", output=message, error_type="UnknownTool")
        began = time.perf_counter()
        try:
            session = await self._session(stream)
            image = await self._image(session.ids.image_id or "", session.ids.scope)
            context = self._tool_context(session, image, effect)
            failpoint("tool.start")
            with _acting(session, image, effect):
                ended = await run_tool(
                    tool,
                    effect.input,
                    context,
                    executor=self._executor(),
                    timeout_s=effect.timeout_s,
                    clean=partial(self._vault.text, scope=session.ids.scope),
                )
            failpoint("tool.ended")
        except asyncio.CancelledError:
            stopped = _stopped(effect.id, repeatable=effect.effect in ("read", "idempotent"))
            return replace(stopped, duration_ms=round((time.perf_counter() - began) * 1000))
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            return SettleTool(tool=effect.id, outcome="error", output=message, error_type=type(error).__name__)
        return SettleTool(
            tool=effect.id,
            outcome="unknown" if ended.may_have_run else ended.outcome,
            output=ended.output,
            error_type=ended.error_type,
            duration_ms=ended.duration_ms,
            dropped_bytes=ended.dropped_bytes,
        )

    async def launch(self, stream: str, effect: LaunchTool) -> Command:
        """What a call is by now, approved or begun before: its tool as it is here, and where it would run."""
        session = await self._session(stream)
        image = await self._image(session.ids.image_id or "", session.ids.scope)
        offered = image.config.tools
        tool = self._tools.get(effect.name) if offered is None or effect.name in offered else None
        problem: str | None = None
        if tool is None:
            problem = f"there is no tool named {effect.name!r} here any more"
        else:
            checked = self._tools.check(effect.name, effect.input)
            problem = None if checked.problem is None else f"its arguments are not accepted any more: {checked.problem}"
        failpoint("launch.found")
        command = StartTool(tool=effect.tool, attempt=effect.attempt, at=self._clock.now(), problem=problem)
        if tool is None:
            return command
        return replace(
            command,
            version=tool.version,
            effect=tool.spec.effect,
            timeout_s=tool.spec.timeout_s,
            place=self._places.of(image, effect.name, session.ids.scope),
            approval=tool.spec.approval,
        )

    async def probe(self, stream: str, effect: ProbeTool) -> Command:
        """Ask the world whether a call took effect that is in doubt."""
        tool = self._tools.get(effect.name)
        if tool is None:
            return ProveTool(tool=effect.id.removeprefix("probe-"), happened=None)
        try:
            session = await self._session(stream)
            image = await self._image(session.ids.image_id or "", session.ids.scope)
            context = self._tool_context(session, image, effect)
            failpoint("probe.start")
            with _acting(session, image, effect):
                clean = partial(self._vault.text, scope=session.ids.scope)
                proof = await probe_tool(tool, effect.input, context, executor=self._executor(), clean=clean)
            failpoint("probe.ended")
        except Exception:
            return ProveTool(tool=effect.id.removeprefix("probe-"), happened=None)
        return ProveTool(tool=effect.id.removeprefix("probe-"), happened=proof.happened, output=proof.output)

    def gone(self, effect: CancelEffect, *, begun: bool) -> Command:
        """The end of a call to be stopped that nobody is at: its runner died, or it never began."""
        if not begun and effect.attempt == 1:
            return SettleTool(tool=effect.target, outcome="skipped", output=NOT_RUN)
        return _stopped(effect.target, repeatable=effect.effect in ("read", "idempotent"))

    def failed(self, effect: RunTool | LaunchTool | ProbeTool, error: BaseException, said: str) -> Command:
        """The end of what could not be done with a tool, or whose end cannot be stored."""
        if isinstance(effect, RunTool):
            known = isinstance(error, Unstorable) or effect.effect in ("read", "idempotent")
            outcome = "error" if known else "unknown"
            return SettleTool(tool=effect.id, outcome=outcome, output=said, error_type=type(error).__name__)
        if isinstance(effect, LaunchTool):
            problem = f"it could not be looked at again ({said})"
            return StartTool(tool=effect.tool, attempt=effect.attempt, at=self._clock.now(), problem=problem)
        return ProveTool(tool=effect.id.removeprefix("probe-"), happened=None)

    def _tool_context(self, session: LiveSession, image: ImageState, effect: RunTool | ProbeTool) -> ToolContext:
        workspace = Path(effect.cwd) if effect.cwd else self._places.workspace(image)
        tool_id = effect.id

        def progress(text: str) -> None:
            self._emit(session, ToolProgress(tool_id=tool_id, text=text))

        if isinstance(effect, ProbeTool):
            job_id, waiting, actions = None, None, None
        else:
            job_id, waiting = effect.job_id, Waiting()
            actions = self._actions((session.session_id, job_id, effect.id, effect.key), waiting, session.ids.scope)
        return ToolContext(
            idempotency_key=effect.key,
            session_id=session.session_id,
            call_id=effect.call_id,
            attempt=effect.attempt,
            workspace=workspace,
            on_progress=progress,
            job_id=job_id,
            actions=actions,
            waiting=waiting,
            secrets=partial(self._vault.get, scope=session.ids.scope),
            surroundings=self._vault.surroundings,
        )

    def _executor(self) -> ToolThreads:
        if self._threads is None:
            self._threads = ToolThreads(THREADS_MAX)
        return self._threads

    def close(self) -> None:
        """Threads of tools that still run are left to end by themselves."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _acting(session: LiveSession, image: ImageState, effect: RunTool | ProbeTool) -> acting:
    """What a call does it does as its agent, and what it sends is under the rules of its job, and counts as it does."""

    def within() -> tuple[Policy, ...]:
        offered = image.config.tools
        return effect.within if offered is None else (*effect.within, only_tools(offered))

    return acting(f"agent:{session.ids.agent_id or ''}", within, (session.ids.scope, effect.origin))


def _stopped(tool: str, *, repeatable: bool) -> SettleTool:
    if repeatable:
        return SettleTool(tool=tool, outcome="error", output=INTERRUPTED, error_type="Interrupted")
    return SettleTool(tool=tool, outcome="unknown", output=UNKNOWN, error_type="Interrupted")
