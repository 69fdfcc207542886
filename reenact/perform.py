"""What is owed to the world, done: models called, tools run, doubts put to the world. Each ends in a command.

It makes one attempt. Whether another follows is decided from the log, so every attempt is in it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .actors.clock import Clock
from .actors.dispatch import Unstorable, Work
from .actors.image import State as ImageState
from .actors.policy import rights_of
from .adapters.tools.acting import acting
from .adapters.tools.context import ToolContext, Waiting
from .adapters.tools.registry import Tools
from .adapters.tools.runner import probe, run
from .adapters.tools.threads import ToolThreads
from .bill import Bill
from .environment import PLAIN, Environment, EnvironmentFactory, EnvironmentSpec
from .events.agent import (
    AnswerModel,
    CallModel,
    CancelEffect,
    FailModel,
    LaunchTool,
    ProbeTool,
    ProveTool,
    RunTool,
    SettleTool,
    StartTool,
)
from .events.assembler import Assembler
from .events.content import Failure, OutputPart, ToolCall, Usage
from .events.errors import ReenactError
from .events.failpoint import failpoint
from .events.image import ImageConfig
from .events.ledger import RecallAllotment
from .events.message import Command, Signal, digest, show_digest
from .events.model import Credentials, ModelAnswer, ModelFailure, ModelRequest
from .events.purse import RequestAllotment
from .events.stream import Connected, Disconnected, ErrorReceived, Reconnecting, ToolProgress
from .events.tool import Place
from .treasury import not_back

if TYPE_CHECKING:
    from .adapters.models.retry import Retries
    from .fallover import Fallover
    from .live import LiveSession
    from .treasury import Treasury
    from .vault import Vault

_log = logging.getLogger("reenact")

INTERRUPTED = "Stopped while it ran: the turn was interrupted."
UNKNOWN = "Stopped while it ran: it is not known whether it took effect."

VARIABLE_CHARS_MAX = 1000
"""Characters of a variable that are stored with a question; of a longer one it is a digest."""

WORKSPACES_MAX = 10_000
"""Paths of working folders that are remembered."""
NOT_RUN = "Not run: the turn was stopped before this call began."


class Outside:
    """The performer of a runtime: one environment an agent, one thread pool for tools that block."""

    def __init__(
        self,
        *,
        tools: Tools,
        environment: EnvironmentFactory,
        fallover: Fallover,
        retries: Retries,
        clock: Clock,
        base_path: Path,
        session: Callable[[str], Awaitable[LiveSession]],
        image: Callable[[str, str], Awaitable[ImageState]],
        config: Callable[[str, int, str], Awaitable[ImageConfig]],
        later: Callable[[Awaitable[object]], None],
        emit: Callable[[LiveSession, Signal | None], None],
        treasury: Callable[[str], Treasury],
        vault: Vault,
        actions: Callable[[tuple[str, str | None, str, str], Waiting, str], Any] = lambda call, waiting, scope: None,
        tool_threads: int = 32,
    ) -> None:
        """actions(call, waiting): what a call puts its questions to people with, see `actions.ActionManager`."""
        self._actions = actions
        self.tools = tools
        self._environment = environment
        self._fallover = fallover
        self._retries = retries
        self._clock = clock
        self._base_path = base_path
        self._session = session
        self._image = image
        self._config = config
        self._later = later
        self._emit = emit
        self._treasury = treasury
        self._vault = vault
        self._environments: dict[str, tuple[EnvironmentSpec, Environment]] = {}
        self._connected: set[str] = set()
        self._workspaces: dict[tuple[str | None, str | None], Path] = {}  # a path costs more than a lookup
        self._threads: ToolThreads | None = None
        self._tool_threads = tool_threads

    # -- the port of dispatch --

    async def perform(self, stream: str, effect: Work) -> Command:
        """Do it once, and give the command that tells how it ended. Cancelled: stop, and tell that."""
        if isinstance(effect, CallModel):
            return await self._call_model(stream, effect)
        if isinstance(effect, RunTool):
            return await self._run_tool(stream, effect)
        if isinstance(effect, LaunchTool):
            return await self._launch_tool(stream, effect)
        if isinstance(effect, RequestAllotment):
            return await self._treasury(effect.ledger).fetch(stream, effect)
        if isinstance(effect, RecallAllotment):
            return await self._treasury(stream.removeprefix("ledger-")).recall(effect)
        return await self._probe_tool(stream, effect)

    def gone(self, effect: CancelEffect, *, begun: bool) -> Command:
        """The end of an effect to be stopped that nobody is at: its runner died, or it never began."""
        if not effect.tool:
            return FailModel(call=effect.target, attempt=effect.attempt, failure=_CANCELLED)
        if not begun and effect.attempt == 1:
            return SettleTool(tool=effect.target, outcome="skipped", output=NOT_RUN)
        return _stopped(effect.target, repeatable=effect.effect in ("read", "idempotent"))

    def failed(self, effect: Work, error: BaseException) -> Command:
        """The end of an effect that could not be performed, or whose end cannot be stored."""
        code = error.code if isinstance(error, ReenactError) else "internal"
        if isinstance(effect, CallModel):
            failure = Failure(code=code, message=_said(error))
            return FailModel(call=effect.id, attempt=effect.attempt, failure=failure)
        if isinstance(effect, RunTool):
            known = isinstance(error, Unstorable) or effect.effect in ("read", "idempotent")
            outcome = "error" if known else "unknown"
            return SettleTool(tool=effect.id, outcome=outcome, output=_said(error), error_type=type(error).__name__)
        if isinstance(effect, LaunchTool):
            problem = f"it could not be looked at again ({_said(error)})"
            return StartTool(tool=effect.tool, attempt=effect.attempt, at=self._clock.now(), problem=problem)
        if isinstance(effect, RequestAllotment):
            return self._treasury(effect.ledger).failed(effect, code)
        if isinstance(effect, RecallAllotment):
            return not_back(effect)
        return ProveTool(tool=effect.id.removeprefix("probe-"), happened=None)

    # -- models --

    async def _call_model(self, stream: str, effect: CallModel) -> Command:
        assembler = Assembler()
        bill = Bill(effect.model, self._clock)
        began = time.perf_counter()
        asked: _Asked | None = None
        try:
            if effect.not_before:
                # A clock that was set back must not make it wait for years.
                wait_s = (effect.not_before - self._clock.now()) / 1_000_000
                await asyncio.sleep(min(max(0.0, wait_s), self._retries.longest_s))
                began = time.perf_counter()
            session = await self._session(stream)
            await self._treasury(session.ids.scope).heeded(stream)
            config = await self._config(session.ids.image_id or "", effect.image_version, session.ids.scope)
            tools = self.tools if config.tools is None else self.tools.only(config.tools)
            spec = _spec(session, effect, config)
            asked = spec, Credentials()
            whom = self._fallover.before(effect, spec)
            if not isinstance(whom, Credentials):
                return whom
            asked = spec, whom
            offered = _offered(tools, effect)
            answer = await self._stream(session, effect, config, offered, assembler, bill, spec, whom)
        except asyncio.CancelledError:
            partial = assembler.parts(partial=True)
            usage, took_ms = assembler.usage, _since(began)
            return FailModel(
                call=effect.id,
                attempt=effect.attempt,
                failure=_CANCELLED,
                partial=partial,
                usage=usage,
                duration_ms=took_ms,
                cost=await bill.settle(usage) if usage is not None or partial else None,
            )
        except Exception as error:
            return await self._failed(stream, effect, error, assembler, began, bill, asked)
        calls = (part for part in answer.parts if isinstance(part, ToolCall))
        checks = tuple(tools.check(call.name, call.input, invalid=call.invalid) for call in calls)
        if effect.policy or config.approval_required or any(check.approval == "ask" for check in checks):
            image = await self._image(session.ids.image_id or "", session.ids.scope)
            checks = tuple(replace(check, place=self._place(image, check.name)) for check in checks)
        took_ms = _since(began)
        self._fallover.answered(effect, whom)
        cost = await bill.settle(answer.usage, answer.model)
        return AnswerModel(call=effect.id, answer=answer, checks=checks, duration_ms=took_ms, cost=cost)

    async def _stream(
        self,
        session: LiveSession,
        effect: CallModel,
        config: ImageConfig,
        tools: Tools,
        assembler: Assembler,
        bill: Bill,
        spec: EnvironmentSpec,
        credentials: Credentials,
    ) -> ModelAnswer:
        environment = self._environment_of(spec)
        request = ModelRequest(
            model=effect.model.partition(":")[2],
            system=config.system_prompt,
            items=session.context.render(effect.upto),
            tools=tools.specs(),
            params=effect.params,
            credentials=credentials,
            session_id=session.session_id,
            call=effect.id,
            cache=session.context.cache,
        )
        bill.base_url = request.credentials.base_url
        perceive = environment.receptor.perceive
        emit = self._emit
        plain = environment.receptor is PLAIN
        answer: ModelAnswer | None = None
        failpoint("model.request")
        try:
            async for item in environment.effector.act(request):
                bill.begin()
                if session.session_id not in self._connected:
                    self._connected.add(session.session_id)
                    emit(session, Connected())
                if isinstance(item, ModelAnswer):
                    answer = item  # what still comes is the end of the connection, which may then be used again
                    continue
                assembler.feed(item)
                if plain:
                    emit(session, item)
                else:
                    for signal in perceive(item):
                        emit(session, signal)
        finally:
            emit(session, None)
        if answer is not None:
            failpoint("model.answered")
            return answer
        raise ModelFailure(
            Failure(code="stream_cut", message="The model's answer ended without its end mark.", retryable=True),
            partial=assembler.parts(partial=True),
            usage=assembler.usage,
        )

    async def _failed(
        self,
        stream: str,
        effect: CallModel,
        error: Exception,
        assembler: Assembler,
        began: float,
        bill: Bill,
        asked: _Asked | None,
    ) -> FailModel:
        failpoint("model.failed")
        took_ms = _since(began)
        partial: tuple[OutputPart, ...] = ()
        usage: Usage | None = None
        if isinstance(error, ModelFailure):
            failure, partial, usage = error.failure, error.partial, error.usage
        elif isinstance(error, ReenactError):
            failure = Failure(code=error.code, message=str(error))
        else:
            failure, partial = Failure(code="internal", message=_said(error)), assembler.parts(partial=True)
        retry_in_ms, select, key, exhausted = None, None, None, False
        if asked is None or isinstance(error, ReenactError):  # no model had a part in it
            wait_s = self._retries.next_wait(effect.attempt, failure)
            retry_in_ms = None if wait_s is None else round(wait_s * 1000)
        else:
            failure, retry_in_ms, select, key, exhausted = self._fallover.after(effect, *asked, failure)
        await self._tell_failure(stream, failure, effect.attempt, retry_in_ms)
        return FailModel(
            call=effect.id,
            attempt=effect.attempt,
            failure=failure,
            partial=partial,
            usage=usage,
            retry_in_ms=retry_in_ms,
            duration_ms=took_ms,
            key=key,
            select=select,
            exhausted=exhausted,
            # Text without a count of its tokens was billed, and nobody knows how much: that is no zero.
            cost=await bill.settle(usage) if usage is not None or partial else None,
        )

    async def _tell_failure(self, stream: str, failure: Failure, attempt: int, wait_ms: int | None) -> None:
        """Let watchers see it live; the log has it a moment later."""
        with suppress(ReenactError):
            session = await self._session(stream)
            self._emit(session, ErrorReceived(message=failure.message, error_code=failure.code))
            if failure.code in _CONNECTION and session.session_id in self._connected:
                self._connected.discard(session.session_id)
                self._emit(session, Disconnected(reason=failure.message))
            if wait_ms is not None:
                self._emit(session, Reconnecting(attempt=attempt + 1, wait_s=wait_ms / 1000))

    def _environment_of(self, spec: EnvironmentSpec) -> Environment:
        """The agent's environment; another one when its model or its definition has changed, and the old one's end."""
        spec = replace(spec, principal="")  # one agent may be asked by many
        known = self._environments.get(spec.agent_id)
        if known is not None:
            if known[0] == spec:
                return known[1]
            self._later(_disposed(known[1]))
        environment = self._environment(spec)
        self._environments[spec.agent_id] = (spec, environment)
        return environment

    # -- tools --

    async def _run_tool(self, stream: str, effect: RunTool) -> Command:
        tool = self.tools.get(effect.name)
        if tool is None:
            message = f"There is no tool named {effect.name!r} any more. Nothing was run."
            return SettleTool(tool=effect.id, outcome="error", output=message, error_type="UnknownTool")
        began = time.perf_counter()
        try:
            session = await self._session(stream)
            context = await self._tool_context(session, effect)
            failpoint("tool.start")
            with acting(f"agent:{session.ids.agent_id or ''}"):
                ended = await run(
                    tool,
                    effect.input,
                    context,
                    executor=self._executor(),
                    timeout_s=effect.timeout_s,
                    clean=self._vault.text,
                )
            failpoint("tool.ended")
        except asyncio.CancelledError:
            stopped = _stopped(effect.id, repeatable=effect.effect in ("read", "idempotent"))
            return SettleTool(
                tool=stopped.tool,
                outcome=stopped.outcome,
                output=stopped.output,
                error_type=stopped.error_type,
                duration_ms=_since(began),
            )
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

    async def _launch_tool(self, stream: str, effect: LaunchTool) -> Command:
        """What an approved call is by now: its tool as it is here, and where it would run."""
        session = await self._session(stream)
        image = await self._image(session.ids.image_id or "", session.ids.scope)
        offered = image.config.tools
        tool = self.tools.get(effect.name) if offered is None or effect.name in offered else None
        problem: str | None = None
        if tool is None:
            problem = f"there is no tool named {effect.name!r} here any more"
        else:
            checked = self.tools.check(effect.name, effect.input)
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
            place=self._place(image, effect.name),
        )

    def _place(self, image: ImageState, name: str) -> Place:
        """Where and with what a tool of an image runs, as an approval covers it: the folder, and what the variables say
        that it depends on. There are no walls around it.
        """
        workspace, tool = self.workspace(image), self.tools.get(name)
        names = () if tool is None else tool.environ
        env = {each: self._shown(os.environ[each]) for each in names if each in os.environ}
        return Place(cwd="" if workspace is None else str(workspace.absolute()), env=env)

    def _shown(self, value: str) -> str:
        """What a variable says, as it may be stored: a person reads it, and another value is told from it, unless it is
        a secret, of which not even a digest is kept."""
        shown = self._vault.text(value)
        if shown != value or len(value) <= VARIABLE_CHARS_MAX:
            return shown[:VARIABLE_CHARS_MAX]
        return show_digest(digest(value.encode("utf-8", "surrogateescape")))

    async def _probe_tool(self, stream: str, effect: ProbeTool) -> Command:
        tool = self.tools.get(effect.name)
        if tool is None:
            return ProveTool(tool=effect.id.removeprefix("probe-"), happened=None)
        try:
            session = await self._session(stream)
            context = await self._tool_context(session, effect)
            failpoint("probe.start")
            with acting(f"agent:{session.ids.agent_id or ''}"):
                proof = await probe(tool, effect.input, context, executor=self._executor(), clean=self._vault.text)
            failpoint("probe.ended")
        except Exception:
            return ProveTool(tool=effect.id.removeprefix("probe-"), happened=None)
        return ProveTool(tool=effect.id.removeprefix("probe-"), happened=proof.happened, output=proof.output)

    async def _tool_context(self, session: LiveSession, effect: RunTool | ProbeTool) -> ToolContext:
        image = await self._image(session.ids.image_id or "", session.ids.scope)
        workspace = self.workspace(image)
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

    def workspace(self, image: ImageState) -> Path | None:
        """The folder an image's tools work in: its own, or one named after it below the base path."""
        key = image.image_id, image.config.workspace
        known = self._workspaces.get(key)
        if known is None:
            image_id, own = key
            if len(self._workspaces) >= WORKSPACES_MAX:
                self._workspaces.clear()
            path = Path(own) if own is not None else self._base_path / "workspaces" / (image_id or "none")
            known = self._workspaces[key] = path
        return known

    def _executor(self) -> ToolThreads:
        if self._threads is None:
            self._threads = ToolThreads(self._tool_threads)
        return self._threads

    # -- the end --

    async def forget(self, agent_id: str) -> None:
        """An agent is gone: let go of its environment."""
        known = self._environments.pop(agent_id, None)
        if known is not None:
            self._connected.discard(known[0].session_id)
            self._fallover.forget(known[0].session_id)
            await _disposed(known[1])

    async def close(self) -> None:
        """Dispose every environment; threads of tools that still run are left to end by themselves."""
        for _, environment in list(self._environments.values()):
            await _disposed(environment)
        self._environments.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


async def _disposed(environment: Environment) -> None:
    """Dispose one; what it raises is its own affair."""
    try:
        await environment.dispose()
    except Exception:
        _log.exception("the environment %s could not be disposed", environment.name)


def _offered(tools: Tools, effect: CallModel) -> Tools:
    """Those of its tools that the model is told of: none that the rules would not let it run."""
    if not effect.policy:
        return tools
    rights = rights_of(effect.policy, effect.scope, effect.principal)
    return tools.only(name for name in tools if rights.offers(name))


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, ReenactError) else f"{type(error).__name__}: {error}"


_CONNECTION = {"connection", "timeout", "stream_cut"}
"""Failures after which a provider counts as not reached."""

_CANCELLED = Failure(code="cancelled", message="Stopped: the turn was interrupted.")


def _stopped(tool: str, *, repeatable: bool) -> SettleTool:
    if repeatable:
        return SettleTool(tool=tool, outcome="error", output=INTERRUPTED, error_type="Interrupted")
    return SettleTool(tool=tool, outcome="unknown", output=UNKNOWN, error_type="Interrupted")


_Asked = tuple[EnvironmentSpec, Credentials]
"""For whom a model was asked, and with which key."""


def _spec(session: LiveSession, effect: CallModel, config: ImageConfig) -> EnvironmentSpec:
    return EnvironmentSpec(
        agent_id=session.ids.agent_id or "",
        image_id=session.ids.image_id or "",
        session_id=session.session_id,
        container_id=session.ids.container_id or "",
        model=effect.model,
        system_prompt=config.system_prompt,
        workspace=config.workspace,
        scope=session.ids.scope,
        principal=session.ids.principal,
    )


def _since(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)
