"""The environment of an agent: the effector carries what is owed to the model, the receptor what the model says back.

`environment_factory` may replace it agent by agent; the default reaches the model that the image names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

from msgspec import Struct

from .adapters.models import Models
from .events.message import Signal
from .events.model import ModelAnswer, ModelRequest


class EnvironmentSpec(Struct, frozen=True, kw_only=True):
    """What an environment is made for: one agent, and how its image wants it. scope: whose agent it is.

    principal: who asked for this call, told where credentials are asked for and not where an environment is made.
    """

    agent_id: str
    image_id: str
    session_id: str
    container_id: str
    model: str
    system_prompt: str
    workspace: str | None
    scope: str = "default"
    principal: str = ""


class Effector(Protocol):
    """Bus to model: performs one call. See `events.model.Model` for what it must yield and raise."""

    def act(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]: ...


class Receptor(Protocol):
    """Model to bus: what a signal becomes before everybody sees it. Nothing hides it, more tells more."""

    def perceive(self, signal: Signal) -> Iterable[Signal]: ...


class Environment(Protocol):
    """One agent's outside. `dispose` is awaited when the agent is gone, when its session is put to sleep (it gets
    another when it next needs one), and when the runtime closes."""

    @property
    def name(self) -> str: ...
    @property
    def effector(self) -> Effector: ...
    @property
    def receptor(self) -> Receptor: ...
    async def dispose(self) -> None: ...


EnvironmentFactory = Callable[[EnvironmentSpec], Environment]


class Plain:
    """The receptor that lets everything through as it came."""

    def perceive(self, signal: Signal) -> Iterable[Signal]:
        return (signal,)


class ModelEnvironment:
    """The default: calls go to the adapter of the provider that the model's name begins with."""

    name = "model"

    def __init__(self, models: Models, provider: str) -> None:
        self._models = models
        self._provider = provider
        self.effector = self
        self.receptor = PLAIN

    def act(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        return self._models.get(self._provider).stream(request)

    async def dispose(self) -> None:
        return None


PLAIN = Plain()
