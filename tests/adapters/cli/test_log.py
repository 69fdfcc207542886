"""The file that commands work in: none, no log, another process's, and on a disk that is full."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from reenact.events.log import Result, Transaction
from tests.adapters.cli.processes import process, wait_for
from tests.adapters.cli.terminal import one_line, reenact
from tests.adapters.cli.work import script

pytestmark = pytest.mark.usefixtures("tools")


def _truncate(path: Path) -> None:
    reenact("run", "hi", "-m", "scripted:hello")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for beside in ("-wal", "-shm"):
        Path(str(path) + beside).unlink(missing_ok=True)


def _foreign(path: Path) -> None:
    import sqlite3

    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_text("Dear diary, today I wrote no database."), id="no database"),
        pytest.param(_foreign, id="another program's"),
        pytest.param(_truncate, id="truncated"),
        pytest.param(lambda path: path.mkdir(), id="a folder"),
    ],
)
@pytest.mark.parametrize("command", [("run", "hi"), ("ps",), ("messages", "last"), ("resume",), ("sql", "SELECT 1")])
def test_what_is_no_log_is_one_line_and_is_left_as_it_was(here: Path, spoil: object, command: tuple[str, ...]) -> None:
    path = here / "reenact.db"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None

    ended = reenact(*command)

    assert ended.code == 1 and "reenact.db" in one_line(ended)
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize("command", [("run", "hi"), ("ps",)])
def test_a_folder_that_is_not_there_is_one_line(command: tuple[str, ...]) -> None:
    ended = reenact(*command, "--db", "sqlite:///no/such/folder/x.db")

    assert ended.code == 1 and "does not exist" in one_line(ended)


def test_while_a_process_owns_the_log_others_read_it_and_are_refused_to_work_in_one_line(here: Path) -> None:
    killed = script({"tool_calls": [{"name": "charge", "input": {"cents": 1}}]}, {"text": "Done."})
    (here / "wait").touch()
    child = process("run", "Charge it", "-m", killed, "--tools", "tools.py", "--session", "s")
    wait_for(here / "inside", child)

    for command in (["run", "hi", "-m", "scripted:hello"], ["chat"], ["resume"]):
        ended = reenact(*command, stdin="")
        assert ended.code == 1 and str(child.pid) in one_line(ended)
    assert reenact("ps", "--json").row["state"] == "running"
    assert reenact("messages", "s").code == 0 and reenact("replay", "s").code == 0
    assert reenact("sql", "SELECT count(*) AS n FROM events", "--json").row["n"] > 10

    (here / "wait").unlink()
    out, err = child.communicate()
    assert (child.returncode, out, err) == (0, "Done.\n", "")


def test_a_disk_that_is_full_in_the_middle_of_a_turn_is_one_line_and_the_work_stays(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reenact.adapters.logs.sqlite import SqliteLog
    from reenact.events.errors import DiskFull

    commit = SqliteLog.commit

    def full(self: SqliteLog, transactions: Sequence[Transaction]) -> list[Result]:
        if any(batch.head.asked == "answer_model" for each in transactions for batch in each.batches):
            raise DiskFull("There is no room left.")
        return commit(self, transactions)

    monkeypatch.setattr(SqliteLog, "commit", full)
    ended = reenact("run", "said", "-m", "scripted:echo")
    assert ended.code == 1 and one_line(ended) == "There is no room left."
    ended = reenact("resume")
    assert ended.code == 1 and one_line(ended) == "There is no room left."

    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert reenact("resume") == (0, "said\n", "")
