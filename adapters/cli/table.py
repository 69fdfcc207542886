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
    "pending": "yellow",
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

CELL_CHARS_MAX = 400
"""Characters of a cell of a table; `--json` shows all."""

_WIDE_MIN = 18
_NARROW_MIN = 4
_GAP = 2


class Column:
    """One column. show: what a row has there. right: for numbers. wide: is cut when room is short. spare: is left
    out then."""

    def __init__(self, title: str, show: Any, *, right: bool = False, wide: bool = False, spare: bool = False) -> None:
        self.title = title
        self.show = show if callable(show) else (lambda row: row.get(show))
        self.wide = wide
        self.spare = spare
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


def listed(output: Output, columns: Sequence[Column], rows: Iterable[Row], *, none: str) -> int:
    """The rows as JSON where that is wanted, else as a `table`. Gives the exit code."""
    if output.json:
        output.rows(rows)
    else:
        table(output, columns, rows, none=none)
    return 0


def found(output: Output, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Rows with columns of any number: side by side where they fit, else each row as a block of lines."""
    columns = [Column(name, name, wide=True) for name in names]
    widest = [max(len(name), *(len(_cell(row[name])) for row in rows)) if rows else len(name) for name in names]
    if not output.shows or sum(min(width, _WIDE_MIN) + _GAP for width in widest) <= output.columns:
        table(output, columns, rows, none="no row.")
        return
    longest = max(map(len, names))
    for row in rows:
        for name in names:
            output.line(f"{name:<{longest}}  {short(_cell(row[name]), output.columns - longest - 3)}".rstrip())
        output.line()


def _styled(output: Output, columns: Sequence[Column], cells: list[list[str]]) -> None:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    console = output.console(output.out)
    widths = [max(cell_len(column.title), *(cell_len(row[at]) for row in cells)) for at, column in enumerate(columns)]
    fitting = _fitting(columns, widths, console.width)
    made = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", pad_edge=False)
    for at, width in fitting.items():
        justify: Any = "right" if columns[at].right else "left"
        made.add_column(columns[at].title, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        made.add_row(*(Text(row[at], style=STYLES.get(row[at], "")) for at in fitting))
    try:
        console.print(made)
    except BrokenPipeError:
        output.leave()


def _fitting(columns: Sequence[Column], widths: list[int], room: int) -> dict[int, int]:
    """The columns that have room side by side, with their widths: spare ones go, the last first; wide ones give way."""
    least = [min(width, _WIDE_MIN) if columns[at].wide else width for at, width in enumerate(widths)]
    shown = dict(enumerate(least))
    for at in reversed(range(len(columns))):
        if columns[at].spare and sum(shown.values()) + _GAP * len(shown) > room:
            del shown[at]
    left = room - sum(shown.values()) - _GAP * len(shown)
    for at in [at for at in shown if columns[at].wide]:
        more = max(_NARROW_MIN - shown[at], min(left, widths[at] - shown[at]))
        shown[at] += more
        left -= more
    return shown


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return short(value, CELL_CHARS_MAX)


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
