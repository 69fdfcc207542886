"""Text that comes in pieces, broken between words at the edge of the terminal. Blocks of code stay as they are."""

from __future__ import annotations

import re
from collections.abc import Callable

_TOKEN = re.compile(r"\n|[^\S\n]+|\S+")
_FENCE = "```"


class Flow:
    """write(text) is given what can be shown by now: a word waits until it is known to be whole."""

    def __init__(self, write: Callable[[str], object], width: Callable[[], int]) -> None:
        self._write = write
        self._width = width
        self._word = ""
        self._space = ""
        self._column = 0
        self._line = ""
        self._fenced = False

    def feed(self, text: str) -> None:
        """More text."""
        tokens = _TOKEN.findall(self._word + text)
        self._word = tokens.pop() if tokens and not tokens[-1].isspace() else ""
        shown = "".join(map(self._place, tokens))
        if shown:
            self._write(shown)

    def end(self) -> None:
        """There is no more: what waits is shown, and the line is ended where one was begun."""
        shown = self._place(self._word) if self._word else ""
        self._word = ""
        if self._column or shown:
            shown += self._place("\n")
        if shown:
            self._write(shown)

    def _place(self, token: str) -> str:
        from rich.cells import cell_len

        if token == "\n":
            if self._line.lstrip().startswith(_FENCE):
                self._fenced = not self._fenced
            self._column, self._line, self._space = 0, "", ""
            return "\n"
        if token.isspace():
            self._space += token  # shown with the word behind it, unless that is put on a line of its own
            return ""
        space, self._space = self._space, ""
        long = self._column + len(space) + cell_len(token)
        if self._column and long > self._width() and not self._fenced and not self._line.startswith(_FENCE):
            self._column = cell_len(token)
            return "\n" + token
        self._column = long
        self._line = (self._line + space + token)[:8]
        return space + token
