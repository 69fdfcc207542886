"""The front door: the public names, each loaded from its room when it is first asked for.

`import reenact` therefore loads no provider SDK, no DuckDB and no terminal library. Only this folder sees all four
rooms.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["Runtime", "__version__", "tool"]

# Public name -> the module it lives in. Type checkers cannot follow the table and read the imports below it.
_HOMES = {
    "Runtime": "reenact.runtime",
    "tool": "reenact.adapters.tools.tool",
}

if TYPE_CHECKING:
    from .adapters.tools.tool import tool as tool
else:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'reenact' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
