"""What repeats is stored once, under a number: what a number stands for, and which number to write.

Both sides remember what they have looked up, within a bound, and ask the file for the rest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ...events.errors import Corrupt
from ...events.message import Context
from ...events.shape import json_decoder

T = TypeVar("T")

NAMES_MAX = 20_000
"""How many names of one kind are remembered."""


TEXTS_LOOKED_AT = 32
"""How many of the newest texts are looked through for one that is not remembered; about 5 us."""

_NEWEST_TEXTS = "SELECT number FROM (SELECT number, text FROM texts ORDER BY number DESC LIMIT ?) WHERE text = ?"


class Names:
    """What the numbers in the rows stand for. row: runs a query and gives its first row or None."""

    def __init__(self, row: Callable[..., Any]) -> None:
        def found(statement: str) -> Callable[[int], Any]:
            def look_up(number: int) -> Any:
                values = row(statement, number)
                if values is None:
                    raise Corrupt(f"An event refers to number {number}, which its table of names does not have.")
                return values

            return look_up

        kind = found("SELECT name, schema FROM types WHERE number = ?")
        stream = found("SELECT name FROM streams WHERE number = ?")
        text = found("SELECT text FROM texts WHERE number = ?")
        writer = found("SELECT writer FROM owners WHERE epoch = ?")
        self.type: Callable[[int], tuple[str, int]] = _Remembered(kind).__getitem__
        self.stream: Callable[[int], str] = _Remembered(lambda number: stream(number)[0]).__getitem__
        self.context: Callable[[int], Context] = _Remembered(lambda number: _context(text(number)[0])).__getitem__
        self.key: Callable[[int], str] = _Remembered(lambda number: text(number)[0]).__getitem__
        self.writer: Callable[[int], str] = _Remembered(lambda epoch: writer(epoch)[0]).__getitem__


class _Remembered(dict[int, T]):
    def __init__(self, look_up: Callable[[int], T]) -> None:
        self._look_up = look_up

    def __missing__(self, number: int) -> T:
        if len(self) >= NAMES_MAX:
            self.clear()
        value = self[number] = self._look_up(number)
        return value


def _context(text: str) -> Context:
    try:
        context: Context = json_decoder(Context)(text)
        return context
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Corrupt(f"A stored context cannot be read: {error}.") from error


class Numbers:
    """Which number to write for a name: the one it has, or a new one, given within the running transaction.

    Forget it all when that transaction is undone. Raises UnicodeEncodeError or OverflowError for what has no bytes.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        # In a file of format 1 a text stands once, and an index finds it.
        self._indexed = bool(db.execute("PRAGMA index_list(texts)").fetchall())
        self._types: dict[tuple[str, int], int] = {}
        self._contexts: dict[Context, int] = {}
        self._keys: dict[str, int] = {}

    def type(self, name: str, schema: int) -> int:
        """The number of an event type; of a command's name with schema 0."""
        number = self._types.get((name, schema))
        if number is None:
            number = self._number("types", name=name, schema=schema)
            self._types[name, schema] = number
        return number

    def context(self, context: Context) -> int:
        number = self._contexts.get(context)
        if number is None:
            number = self._text(msgspec.json.encode(context).decode())
            _remember(self._contexts, context, number)
        return number

    def key(self, key: str) -> int:
        number = self._keys.get(key)
        if number is None:
            number = self._text(key)
            _remember(self._keys, key, number)
        return number

    def new_stream(self, name: str) -> int:
        return self._insert("streams", name=name)

    def new_epoch(self, writer: str, opened: int) -> int:
        return self._insert("owners", writer=writer, opened=opened)

    def _text(self, text: str) -> int:
        """Where nothing is remembered, as in a new process, the newest texts are looked through: a session that goes on
        finds its own there, unless many others spoke since; then it stands there twice."""
        if self._indexed:
            return self._number("texts", text=text)
        found = self._db.execute(_NEWEST_TEXTS, (TEXTS_LOOKED_AT, text)).fetchone()
        return self._insert("texts", text=text) if found is None else int(found[0])

    def _number(self, table: str, **values: str | int) -> int:
        where = " AND ".join(f"{column} = ?" for column in values)
        found = self._db.execute(f"SELECT number FROM {table} WHERE {where}", tuple(values.values())).fetchone()
        return self._insert(table, **values) if found is None else int(found[0])

    def _insert(self, table: str, **values: str | int) -> int:
        marks = ", ".join("?" * len(values))
        statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"
        number = self._db.execute(statement, tuple(values.values())).lastrowid
        assert number is not None
        return number


def _remember(known: dict[Any, int], name: object, number: int) -> None:
    if len(known) >= NAMES_MAX:
        known.clear()
    known[name] = number
