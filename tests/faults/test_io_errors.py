"""Errors of the system at the k-th call, injected by strace: the log stops, says what it knows, and loses nothing."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Struct

from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.verify import verify
from tests.conftest import LONG, Figure

STRACE = shutil.which("strace")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(STRACE is None, reason="needs strace to inject errors")

# Sixty real commits; "ack n" when image n is stored. After an error that stopped the log: it must refuse to write, and
# after reopening `settled` must know. Dies without closing.
WRITER = """
import os, sys
from reenact.actors.cell import Cell
from reenact.adapters.logs import sqlite
from reenact.events.container import AddImage
from reenact.events.errors import Busy, Corrupt, DiskFull, StoreError, StoreFailed, UnknownOutcome
from reenact.events.log import Transaction
from reenact.events.message import Asked

class GoesOn(sqlite.SqliteLog):
    # The broken build: what it does not know it takes for done.
    def commit(self, transactions):
        before = self.position
        try:
            return super().commit(transactions)
        except UnknownOutcome:
            self.reopen()
            return [[sqlite.Stored(before + 1, self.epoch, batch) for batch in t.batches] for t in transactions]

sqlite.CHECKPOINT_PAGES = 40
try:
    log = {"ours": sqlite.SqliteLog, "broken": GoesOn}[sys.argv[2]](sys.argv[1])
    cell = Cell("container-a")
    cell.load(log)
except (StoreError, OSError) as error:
    print("not_opened", type(error).__name__, flush=True)
    os._exit(0)
for count in range(1, 61):
    command = AddImage(container_id="a", image_id=f"img_{count}_" + "x" * 400, created_at=count)
    prepared = cell.prepare(Asked(id=f"{count:032x}", at=count, command=command), log)
    wanted = Transaction((prepared.batch,))
    for attempt in range(5):
        try:
            result = log.commit([wanted])[0]
        except (DiskFull, Busy):
            print("refused", count, flush=True)
            continue
        except (StoreFailed, UnknownOutcome, Corrupt) as error:  # SQLite takes some unreadable pages for damaged ones
            print("unknown" if isinstance(error, UnknownOutcome) else "stopped", count, flush=True)
            try:
                log.commit([wanted])
            except StoreFailed:
                pass
            else:
                print("WENT_ON", count, flush=True)
            for again in range(5):
                try:
                    log.reopen()
                    break
                except StoreError:
                    print("not_reopened", count, flush=True)
            result = log.settled(wanted)
            if result is None:
                print("absent", count, flush=True)
                continue
            print("there", count, flush=True)
        if isinstance(result, Exception):
            print("contradicted", count, flush=True)
            os._exit(0)
        cell.accept(prepared, result[0])
        print("ack", count, flush=True)
        break
os._exit(0)
"""


class Injected(Struct, frozen=True):
    """A run. met: the call was made, so there was an error. words: what it said. wrong: what it left that is wrong."""

    met: bool
    words: Counter[str]
    wrong: list[str]


def inject(path: Path, kind: str, call: str, fault: str, nth: int) -> Injected:
    assert STRACE is not None
    fault = f"inject={call}:error={fault}:when={nth}"
    trace = path.with_suffix(".trace")
    # Only calls on the log's own files: the interpreter makes the same calls for its modules.
    files = [word for suffix in ("", "-wal", "-journal") for word in ("-P", f"{path}{suffix}")]
    strace = (STRACE, "-f", "-qq", "-o", str(trace), *files, "-e", f"trace={call}", "-e", fault)
    child = subprocess.run(
        [*strace, sys.executable, "-c", WRITER, str(path), kind],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == 0 and not child.stderr, child.stderr
    said = [line.split() for line in child.stdout.splitlines()]
    words = Counter(words[0] for words in said)
    wrong = []
    if words["WENT_ON"]:
        wrong.append("it took a write after an error")
    if words["contradicted"]:
        wrong.append("what it said was done was not")
    with closing(SqliteLog(path)) as log:  # the next owner
        found = {
            row.data.split(b"img_")[1].split(b"_")[0] for s in log.read_all(limit=1000) for row in s.batch.rows[-1:]
        }
    wrong += [f"{n} was acknowledged and is lost" for word, n in said if word == "ack" and n.encode() not in found]
    report = verify(str(path))
    if not report.sound:
        wrong.append(report.summary)
    return Injected("(INJECTED)" in trace.read_text(), words, wrong)


FAULTS = [
    ("fdatasync", "EIO", 9),
    ("fdatasync", "EINTR", 30),
    ("pwrite64", "EIO", 67),
    ("pwrite64", "ENOSPC", 97),
    ("pwrite64", "EINTR", 190),
    ("ftruncate", "EIO", 2),
    ("openat", "EIO", 2),
    ("pread64", "EIO", 11),
    ("unlink", "EIO", 1),
]
"""What fails, how, and in how big steps the quick tier goes through the calls. The long one takes every call."""


@pytest.mark.parametrize(("call", "fault", "step"), FAULTS, ids=lambda value: str(value))
def test_an_error_at_any_call_loses_nothing(call: str, fault: str, step: int, tmp_path: Path, figure: Figure) -> None:
    """From the first call to the last one that the program makes."""
    seen: Counter[str] = Counter()
    nth = 1
    while (run := inject(tmp_path / f"{nth}.db", "ours", call, fault, nth)).met:
        assert not run.wrong, f"{call} {fault} at call {nth}: {run.wrong[:3]}"
        seen += run.words
        seen["points"] += 1
        nth += 1 if LONG else step
    assert run.words == {"ack": 60} and not run.wrong, "past the last call nothing fails"
    figure(f"{call} {fault}: {seen.pop('points')} points up to call {nth - 1}, {dict(seen)}")


def test_the_errors_catch_a_broken_build(tmp_path: Path, figure: Figure) -> None:
    for nth in range(4, 90, 4):
        wrong = inject(tmp_path / f"{nth}.db", "broken", "fdatasync", "EIO", nth).wrong
        if wrong:
            figure(f"found at call {nth}: {wrong[0]}")
            return
    pytest.fail("no violation found")
