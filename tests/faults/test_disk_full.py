"""A full disk: nothing acknowledged is lost, the error says what it is, and it goes on when there is room again."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from reenact.actors.cell import Cell, Prepared
from reenact.adapters.logs.reader import SqliteReader
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.verify import verify
from reenact.events.container import AddImage
from reenact.events.errors import DiskFull
from reenact.events.log import Result, Stored, Transaction
from reenact.events.message import Asked
from tests.conftest import LONG, Figure

CYCLES = 200 if LONG else 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    mounted = sys.platform == "linux" and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


class Writer:
    """Adds images to one container, and knows which of them were acknowledged."""

    def __init__(self, log: SqliteLog) -> None:
        self.log = log
        self.cell = Cell("container-a")
        self.cell.load(log)
        self.count = 0
        self.acknowledged: list[str] = []

    def prepare(self, size: int) -> Prepared:
        self.count += 1
        # Nothing in it repeats, so that it takes the room that it says.
        image = f"img_{self.count}_{random.Random(self.count).randbytes(size // 2).hex()}"
        command = AddImage(container_id="a", image_id=image, created_at=self.count)
        prepared = self.cell.prepare(Asked(id=f"{self.count:032x}", at=self.count, command=command), self.log)
        assert prepared is not None
        return prepared

    def write(self, size: int) -> None:
        prepared = self.prepare(size)
        (result,) = self.log.commit([Transaction((prepared.batch,))])
        assert isinstance(result, list)
        self.cell.accept(prepared, result[0])
        self.acknowledged.append(prepared.decision.events[-1].image_id)  # type: ignore[attr-defined]


def there(path: Path, acknowledged: Sequence[str]) -> bool:
    """Whether every acknowledged image is in the log, once and in order, and nothing else."""
    with closing(SqliteReader(path)) as reader:
        rows = [row.data for stored in reader.read_all(limit=10**6) for row in stored.batch.rows]
    added = [data for data in rows if b"img_" in data]
    return len(added) == len(acknowledged) and all(
        image.encode() in data for image, data in zip(acknowledged, added, strict=True)
    )


def fill(small: Path, *, leave: int) -> Path:
    ballast = small / "ballast"
    room = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
    ballast.write_bytes(bytes(max(0, room - leave)))
    return ballast


def cycles(writer: Writer, small: Path, rng: random.Random) -> int:
    """Fill the disk, write until it is full, make room, go on. Returns how often it was full."""
    path, full = small / "log.db", 0
    for _ in range(CYCLES):
        ballast = fill(small, leave=rng.randrange(0, 40) * 4096)
        for _ in range(60):
            try:
                writer.write(rng.randrange(100, 9000))
            except DiskFull as error:
                assert "Nothing was written" in str(error)
                full += 1
                break
        assert there(path, writer.acknowledged), "read while the disk is full"
        ballast.unlink()
        if os.statvfs(small).f_bavail < 500:
            break
        writer.write(100)  # without being reopened
    return full


def test_nothing_is_lost_on_a_full_disk_and_it_goes_on_when_there_is_room(small: Path, figure: Figure) -> None:
    full = 0
    for disk in range(CYCLES // 10):
        path = small / "log.db"
        log = SqliteLog(path)
        writer = Writer(log)
        full += cycles(writer, small, random.Random(disk))
        log.close()
        assert there(path, writer.acknowledged)
        assert verify(str(path)).sound
        for file in list(small.iterdir()):
            file.unlink()
    figure(f"the disk was full {full} times, 0 violations")
    assert full > 5


def test_a_full_disk_is_named_when_a_log_is_opened_on_it(small: Path) -> None:
    path = small / "log.db"
    writer = Writer(SqliteLog(path))
    for _ in range(20):
        writer.write(500)
    writer.log.close()
    ballast = fill(small, leave=0)
    for opens in (SqliteReader, SqliteLog):
        with pytest.raises(DiskFull, match="Free some space"):
            opens(path)
    ballast.unlink()
    assert there(path, writer.acknowledged) and verify(str(path)).sound
    with closing(SqliteLog(path)) as log:
        later = Writer(log)
        later.count = writer.count
        later.write(500)
        fill(small, leave=0)
        assert there(path, writer.acknowledged + later.acknowledged), "beside an owner it is read on a full disk too"


def test_opening_a_log_does_not_take_the_last_room_on_a_disk(small: Path) -> None:
    path = small / "log.db"
    SqliteLog(path).close()
    fill(small, leave=300_000)
    with closing(SqliteLog(path)) as log:
        assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize > 200_000
        writer = Writer(log)
        writer.write(5000)
        assert there(path, writer.acknowledged)


class SaysStored(SqliteLog):
    """The broken build: a full disk is nobody's business."""

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        before = self.position
        try:
            return super().commit(transactions)
        except DiskFull:
            return [[Stored(before + 1, self.epoch, t.batches[0])] for t in transactions]


def test_a_build_that_says_stored_on_a_full_disk_is_found(small: Path) -> None:
    with closing(SaysStored(small / "log.db")) as log, pytest.raises(AssertionError):
        cycles(Writer(log), small, random.Random(1))


# -- where nothing can be mounted: a limit on the size of files, which the system reports as another error

LIMITED = """
import os, resource, signal, sys
from contextlib import closing
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events.errors import DiskFull, StoreError, StoreFailed, UnknownOutcome
from reenact.events.log import Transaction
from pathlib import Path
from tests.faults.test_disk_full import Writer, there
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))  # less than the log would take at once
with closing(SqliteLog(sys.argv[1] + "-small.db")) as log:
    Writer(log).write(4000)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log = SqliteLog(sys.argv[1])
writer = Writer(log)
stops = 0
for limit in range(200_000, 600_000, 40_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for _ in range(40):
        prepared = writer.prepare(4000)
        wanted = Transaction((prepared.batch,))
        try:
            results = log.commit([wanted])[0]
        except StoreError as error:
            assert isinstance(error, (DiskFull, StoreFailed, UnknownOutcome)), error
            stops += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if not isinstance(error, DiskFull):
                log.reopen()
            results = log.settled(wanted)
            if results is None:
                break
        writer.cell.accept(prepared, results[0])
        writer.acknowledged.append(prepared.decision.events[-1].image_id)
assert there(Path(sys.argv[1]), writer.acknowledged)
log.close()
print(stops)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
def test_a_limit_on_the_size_of_files_loses_nothing(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "log.db"
    command = [sys.executable, "-c", LIMITED, str(path)]
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3
    assert verify(str(path)).sound
