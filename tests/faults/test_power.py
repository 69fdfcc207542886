"""Power loss: whatever of the unsynced writes reached the disk, what was acknowledged is there, and nothing by half.

The system calls of a real run are recorded with strace; each state they may leave behind is opened and read.
"""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reenact.adapters.logs.reader import SqliteReader
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.verify import verify
from reenact.events.errors import NotFound, ReenactError
from reenact.events.log import Stored
from tests.conftest import LONG, Figure
from tests.faults.power import STRACE, State, states, traced

pytestmark = pytest.mark.skipif(STRACE is None, reason="needs strace to record system calls")

# Decides real commands, so that chains and replays can be verified. Two streams a transaction; small checkpoints, so
# that the write-ahead log begins anew a few times. Dies without closing.
WRITER = """
import os, sys
from reenact.actors.cell import Cell
from reenact.adapters.logs import recorder, sqlite
from reenact.events.container import AddImage
from reenact.events.log import Keyed, Transaction
from reenact.events.message import Asked
path, kind, commits = sys.argv[1], sys.argv[2], int(sys.argv[3])
sqlite.CHECKPOINT_PAGES = 60
if kind != "ours":
    recorder._PRAGMAS = tuple(p.replace("synchronous = FULL", "synchronous = " + kind) for p in recorder._PRAGMAS)
log = sqlite.SqliteLog(path)
os.write(1, b"0 ")
cells = [Cell("container-a"), Cell("container-b"), Cell("container-c")]
count = 0
def prepared(cell, size):
    global count
    count += 1
    image = f"img_{count}_" + "x" * size
    command = AddImage(container_id=cell.stream, image_id=image, created_at=count)
    return cell.prepare(Asked(id=f"{count:032x}", at=count, command=command), log)
for turn in range(commits):
    two, one = [prepared(c, 30 * (turn % 7)) for c in cells[:2]], [prepared(cells[2], 3000 * (turn % 3))]
    keyed = Keyed("default", str(turn), b"", "container-a", two[0].batch.last)
    results = log.commit([Transaction(tuple(p.batch for p in two), keyed), Transaction((one[0].batch,))])
    for cell, p, stored in zip(cells, two + one, [*results[0], *results[1]]):
        cell.accept(p, stored)
    os.write(1, f"{log.position} ".encode())
os._exit(0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: thousands of files are written and read."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else tmp_path) as name:
        yield Path(name)


def recorded(folder: Path, kind: str, commits: int) -> tuple[Iterator[State], list[Stored]]:
    """The states one by one: together they would be gigabytes."""
    path = folder / "log.db"
    ops = traced(WRITER, path, kind, commits)
    with closing(SqliteReader(path)) as reader:
        truth = reader.read_all(limit=10**6)
    assert truth[-1].position > commits
    for name in list(folder.iterdir()):
        name.unlink()
    return states(ops, ("log.db", "log.db-wal", "log.db-journal"), random.Random(2)), truth


def wrong(state: State, truth: list[Stored], folder: Path, *, thorough: bool) -> str | None:
    """What this state lacks: an acknowledged event, a half of a transaction, or its soundness."""
    for name, content in state.files.items():
        (folder / name).write_bytes(content)
    path = folder / "log.db"
    try:
        acknowledged = int(state.said.split()[-1]) if state.said else None
        try:
            if "log.db-journal" in state.files:  # Cut off while the tables were made: the next owner undoes that.
                SqliteLog(path).close()
            with closing(SqliteReader(path)) as reader:
                found = reader.read_all(limit=10**6)
        except NotFound:
            return None if acknowledged is None else "lost: the whole log"
        except ReenactError as error:
            return f"corrupt: {error}"
        if found != truth[: len(found)]:
            return "corrupt: not what was written"
        last = found[-1].position + len(found[-1].batch.rows) - 1 if found else 0
        if last < (acknowledged or 0):
            return f"lost: {acknowledged} was acknowledged, and {last} is the last"
        if len(found) % 3:  # the two transactions of a group share a commit
            return "half: a part of a commit"
        if thorough:
            report = verify(str(path))
            if not report.sound:
                return f"corrupt: {report.summary}"
            with closing(SqliteLog(path)) as owner:
                assert owner.read_all(limit=10**6) == found
        return None
    finally:
        for name in list(folder.iterdir()):
            if name.is_file():
                name.unlink()
            else:
                shutil.rmtree(name)


def test_no_state_that_a_power_loss_may_leave_lacks_what_was_acknowledged(folder: Path, figure: Figure) -> None:
    found, truth = recorded(folder, "ours", 400 if LONG else 40)
    tested = 0
    for number, state in enumerate(found):
        problem = wrong(state, truth, folder, thorough=number % 25 == 0)
        assert problem is None, f"{state.how}: {problem}"
        tested += 1
    figure(f"power loss: {tested} states, 0 violations")
    assert tested > (5000 if LONG else 400)


@pytest.mark.parametrize(("kind", "finds"), [("NORMAL", "lost"), ("OFF", "corrupt")])
def test_the_states_catch_a_broken_build(kind: str, finds: str, folder: Path, figure: Figure) -> None:
    states, truth = recorded(folder, kind, 150 if LONG else 25)
    problems = Counter((wrong(state, truth, folder, thorough=False) or "fine").split(":")[0] for state in states)
    figure(f"power loss, synchronous = {kind}: {dict(problems)}")
    assert problems[finds] > 0
