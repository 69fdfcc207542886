"""The front door: the public names, each loaded from its room when it is first asked for.

`import reenact` therefore loads no provider SDK, no DuckDB and no terminal library. Only this folder sees all four
rooms.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the module it lives in. A type checker cannot follow this table, so each name is also imported below it
# under `if TYPE_CHECKING:` once its module exists.
_HOMES = {
    "Runtime": "reenact.runtime",
    "tool": "reenact.adapters.tools.tool",
}

__all__ = ["Runtime", "__version__", "tool"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'reenact' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
