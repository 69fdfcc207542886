"""Rows as a table: columns side by side, cut to the width of a terminal, whole where they go into a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from .front import Row
from .output import Output, short

STYLES = {
    "running": "cyan",
    "queued": "cyan",
    "waiting": "yellow",
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "cancelled": "dim",
    "ok": "green",
    "error": "red",
    "success": "green",
    "failure": "red",
    "unknown": "yellow",
}
"""Words that stand out, wherever they fill a cell."""

_CELL_CHARS_MAX = 400


class Column:
    """One column. show: what a row has there. wide: gives way when there is no room. right: for numbers."""

    def __init__(self, title: str, show: Any, *, wide: bool = False, right: bool = False) -> None:
        self.title = title
        self.show = show if callable(show) else (lambda row: row.get(show))
        self.wide = wide
        self.right = right


def table(output: Output, columns: Sequence[Column], rows: Iterable[Row], *, none: str) -> None:
    """The rows on stdout. none: what to tell on stderr where there are none."""
    cells = [[_cell(column.show(row)) for column in columns] for row in rows]
    if not cells:
        output.say(none, style="dim")
        return
    if output.shows:
        _styled(output, columns, cells)
        return
    widths = [max(len(column.title), *(len(row[at]) for row in cells)) for at, column in enumerate(columns)]
    for row in [[column.title for column in columns], *cells]:
        padded = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        output.write("  ".join(padded).rstrip() + "\n")


def _styled(output: Output, columns: Sequence[Column], cells: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=None,
            min_width=None if column.wide else max(len(column.title), 1),
        )
    for row in cells:
        made.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    console = output.console(output.out)
    try:
        console.print(made)
    except BrokenPipeError:
        output._leave()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return short(value, _CELL_CHARS_MAX)


def moment(at_ms: int | None) -> str:
    """A time as people here say it: today's without its date."""
    if at_ms is None:
        return ""
    then, now = datetime.fromtimestamp(at_ms / 1000), datetime.now()
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"


def span(ms: float | None) -> str:
    """How long something took: `12 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if ms is None:
        return ""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int | None) -> str:
    """A number with its thousands apart."""
    return "" if number is None else f"{number:,}"
