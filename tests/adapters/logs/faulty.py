"""A connection to SQLite whose statements fail as they are told to."""

import sqlite3


class Faulty(sqlite3.Connection):
    """A connection whose next statement of a kind fails once: before SQLite hears of it, or after carrying it out."""

    last: "Faulty"
    fault: tuple[str, int, bool] | None = None

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        Faulty.last = self

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:  # type: ignore[override]
        if self.fault is None or not sql.startswith(self.fault[0]):
            return super().execute(sql, *values)  # type: ignore[arg-type]
        (_, code, carried_out), self.fault = self.fault, None
        if carried_out:
            super().execute(sql, *values)  # type: ignore[arg-type]
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        raise error
