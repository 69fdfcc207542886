"""The front door: the public names, each loaded from its room when it is first asked for.

`import reenact` therefore loads no provider SDK, no DuckDB and no terminal library. Only this folder sees all four
rooms.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "CooldownTimes",
    "Environment",
    "Failover",
    "ImageConfig",
    "ModelParams",
    "ReenactError",
    "Result",
    "Runtime",
    "Scripted",
    "ToolContext",
    "__version__",
    "tool",
]

# Public name -> the module it lives in. Type checkers cannot follow the table and read the imports below it.
_HOMES = {
    "CooldownTimes": "reenact.actors.cooldown",
    "Environment": "reenact.environment",
    "Failover": "reenact.actors.failover",
    "ImageConfig": "reenact.events.image",
    "ModelParams": "reenact.events.model",
    "ReenactError": "reenact.events.errors",
    "Result": "reenact.run",
    "Runtime": "reenact.runtime",
    "Scripted": "reenact.adapters.models.scripted",
    "ToolContext": "reenact.adapters.tools.context",
    "tool": "reenact.adapters.tools.tool",
}

if TYPE_CHECKING:
    from .actors.cooldown import CooldownTimes as CooldownTimes
    from .actors.failover import Failover as Failover
    from .adapters.models.scripted import Scripted as Scripted
    from .adapters.tools.context import ToolContext as ToolContext
    from .adapters.tools.tool import tool as tool
    from .environment import Environment as Environment
    from .events.errors import ReenactError as ReenactError
    from .events.image import ImageConfig as ImageConfig
    from .events.model import ModelParams as ModelParams
    from .run import Result as Result
    from .runtime import Runtime as Runtime
else:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'reenact' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
