"""What is owed to the world, done: models called, tools run, doubts put to the world. Each ends in a command.

It makes one attempt. Whether another follows is decided from the log, so every attempt is in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..actors.dispatch import Work
from ..adapters.tools.registry import Tools
from ..environment import EnvironmentFactory
from ..events.agent import CallModel, CancelEffect, LaunchTool, RunTool
from ..events.errors import ReenactError
from ..events.ledger import CountUsage, RecallAllotments
from ..events.message import Command
from ..events.purse import RequestAllotment
from ..models.model_calls import ModelCalls
from ..money.counting import not_counted
from ..money.line import not_asked
from ..money.recalls import NOT_BACK
from ..tools.places import Places
from ..tools.tool_calls import Actions, ToolCalls

if TYPE_CHECKING:
    from ..adapters.models.retry import Retries
    from ..catalog.definitions import Definitions
    from ..models.fallover import Fallover
    from ..money.treasury import Treasury
    from .kernel import Kernel


class Outside:
    """The performer of a runtime: its calls of models, its calls of tools, and what it asks of ledgers."""

    def __init__(
        self,
        kernel: Kernel,
        definitions: Definitions,
        *,
        tools: Tools,
        environment: EnvironmentFactory,
        fallover: Fallover,
        retries: Retries,
        base_path: Path,
        treasury: Callable[[str], Treasury],
        bring: Callable[[str, str], Awaitable[None]],
        actions: Actions,
    ) -> None:
        """treasury(scope): knows the money of one. bring(session_id, scope): see `ModelCalls`."""
        self._treasury = treasury
        places = Places(tools=tools, base_path=base_path, vault=kernel.vault)
        self._models = ModelCalls(
            kernel,
            definitions,
            places,
            tools=tools,
            environment=environment,
            fallover=fallover,
            retries=retries,
            treasury=treasury,
            bring=bring,
        )
        self._tools = ToolCalls(kernel, definitions, places, tools=tools, actions=actions)

    # -- the port of dispatch --

    async def perform(self, stream: str, effect: Work) -> Command:
        """Do it once, and give the command that tells how it ended. Cancelled: stop, and tell that."""
        if isinstance(effect, CallModel):
            return await self._models.call(stream, effect)
        if isinstance(effect, RunTool):
            return await self._tools.run(stream, effect)
        if isinstance(effect, LaunchTool):
            return await self._tools.launch(stream, effect)
        if isinstance(effect, RequestAllotment):
            return await self._treasury(effect.ledger).line.fetch(stream, effect)
        if isinstance(effect, RecallAllotments):
            return await self._treasury(stream.removeprefix("ledger-")).recalls.recall(effect)
        if isinstance(effect, CountUsage):
            return await self._treasury(stream.removeprefix("ledger-")).counting.count(effect)
        return await self._tools.probe(stream, effect)

    def gone(self, effect: CancelEffect, *, begun: bool) -> Command:
        """The end of an effect to be stopped that nobody is at: its runner died, or it never began."""
        return self._tools.gone(effect, begun=begun) if effect.tool else self._models.gone(effect, begun=begun)

    def failed(self, effect: Work, error: BaseException) -> Command:
        """The end of an effect that could not be performed, or whose end cannot be stored."""
        code, said = "internal", f"{type(error).__name__}: {error}"
        if isinstance(error, ReenactError):
            code, said = error.code, str(error)
        if isinstance(effect, CallModel):
            return self._models.failed(effect, code, said)
        if isinstance(effect, RequestAllotment):
            return not_asked(effect, code)
        if isinstance(effect, RecallAllotments):
            return NOT_BACK
        if isinstance(effect, CountUsage):
            return not_counted(effect)
        return self._tools.failed(effect, error, said)

    # -- the end --

    def forget(self, stream: str) -> None:
        """A session's agent is gone, or they sleep: let go of its environment."""
        self._models.forget(stream.removeprefix("session-"))

    async def close(self) -> None:
        """Dispose every environment; threads of tools that still run are left to end by themselves."""
        await self._models.close()
        self._tools.close()
