"""An error of any kind at each step of a commit: the log knows afterwards what is in it, and goes on without a gap."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reenact.adapters.logs import sqlite
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.verify import verify
from reenact.events import failpoint
from reenact.events.errors import StoreFailed, UnknownOutcome
from reenact.events.log import Result, Transaction
from tests.faults.test_disk_full import Writer, there

STEPS = [name for name in failpoint.NAMES if name.startswith(("commit.", "checkpoint."))]


@pytest.fixture(autouse=True)
def disarmed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 1)  # a checkpoint with every commit
    yield
    failpoint.arm("")


def broken_at(step: str, action: str, path: Path, kind: type[SqliteLog] = SqliteLog) -> None:
    """Ten commits, every other with an error at this step, each taken further as its error says."""
    with closing(kind(path)) as log:
        writer = Writer(log)
        for _ in range(5):
            writer.write(500)
            prepared = writer.prepare(500)
            wanted = Transaction((prepared.batch,))
            failpoint.arm(f"{step}:1:{action}")
            with pytest.raises((failpoint.Injected, OSError, UnknownOutcome), match=step) as raised:
                log.commit([wanted])
            failpoint.arm("")
            if isinstance(raised.value, UnknownOutcome):
                with pytest.raises(StoreFailed):
                    log.commit([wanted])
                log.reopen()
            result = log.settled(wanted)
            if result is None:
                (result,) = log.commit([wanted])
            assert isinstance(result, list), result
            writer.cell.accept(prepared, result[0])
            writer.acknowledged.append(prepared.decision.events[-1].image_id)  # type: ignore[attr-defined]
    assert there(path, writer.acknowledged)
    assert verify(str(path)).sound


@pytest.mark.parametrize("action", ["raise", "eio"])
@pytest.mark.parametrize("step", STEPS)
def test_an_error_at_each_step_leaves_a_log_that_knows_itself(step: str, action: str, tmp_path: Path) -> None:
    broken_at(step, action, tmp_path / "log.db")


class TakesItForUnwritten(SqliteLog):
    """The broken build: what raised was not written."""

    def settled(self, transaction: Transaction) -> Result | None:
        return None


def test_a_build_that_takes_an_error_for_nothing_written_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Conflict"):
        broken_at("commit.executed", "eio", tmp_path / "log.db", TakesItForUnwritten)
