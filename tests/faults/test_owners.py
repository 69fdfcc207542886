"""Many processes that want one log: they race for it, are killed with it, are stopped and woken too late."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reenact.actors.verify import Report
from reenact.adapters.logs import recorder
from reenact.adapters.logs.history import VARIABLE
from reenact.adapters.logs.owner import lock_path
from reenact.adapters.logs.reader import SqliteReader
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.cli.verify import verify
from reenact.events import codec
from reenact.events.agent import ToolStarted
from reenact.events.errors import Busy, Owned
from tests.adapters.logs.programs import line, running, start
from tests.conftest import LONG, Figure

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and no SIGSTOP")

APPENDS = 20_000 if LONG else 1_000
ZOMBIES = 30 if LONG else 2
RACERS = 6

# Owns the log as soon as it can, appends to a stream that all share and to one of its own, lets it go, and again; until
# it is killed, by a failpoint somewhere in its life. In the broken builds all own it at once: `unfenced` compares
# versions and does not look whose log it is, `unversioned` takes every batch as the next one.
RACER = """
import random, sys
from msgspec.structs import replace
from reenact.actors.cell import Cell
from reenact.adapters.logs import open_log, owner, sqlite
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.events import failpoint
from reenact.events.container import AddImage
from reenact.events.errors import Busy, Conflict, Owned
from reenact.events.log import Transaction
from reenact.events.message import Asked
path, seed, build = sys.argv[1], int(sys.argv[2]), sys.argv[3]
append = SqliteLog._append
def takes(log, transaction, group):
    group.position = max(group.position, log._position)
    if build == "unversioned":
        last = lambda batch: (group.lanes.get(batch.stream) or log._lane(batch.stream))[1]
        batches = tuple(replace(each, version=last(each)) for each in transaction.batches)
        transaction = replace(transaction, batches=batches)
    return append(log, transaction, group)
if build != "ours":
    owner._lock = lambda fd: True
    SqliteLog._fence, SqliteLog._append = SqliteLog._forget, takes
chance, count = random.Random(seed), 0
sqlite.CHECKPOINT_PAGES = chance.choice([5, 50, 256])
places = [name for name in failpoint.NAMES if name.startswith(("commit.", "checkpoint.", "open.", "log."))]
failpoint.arm(f"{chance.choice(places)}:{chance.randint(1, 120)}:kill")
def add(log, cell):
    global count
    count += 1
    command = AddImage(container_id=cell.stream, image_id=f"img_{seed}_{count}", created_at=count)
    prepared = cell.prepare(Asked(id=f"{seed:016x}{count:016x}", at=count, command=command), log)
    (result,) = log.commit([Transaction((prepared.batch,))])
    if isinstance(result, Conflict) and build != "ours":
        cell.__init__(cell.stream)
        cell.load(log)
    else:
        cell.accept(prepared, result[0])
while True:
    try:
        log = open_log(path, writer=f"racer {seed}")
    except (Owned, Busy):
        continue
    shared, own = Cell("container-shared"), Cell(f"container-{seed}-{count}")
    shared.load(log)
    add(log, shared)
    for _ in range(chance.randrange(60)):
        add(log, own)
    log.close()
"""


def raced(folder: Path, build: str, appends: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Report, int]:
    """Let several own one log in turn until there are so many events, all killed; what its check says, and how many."""
    path, history = folder / "log.db", folder / "history"
    if build != "ours":
        SqliteLog(path).close()  # of those that make the file, one does in any build
    monkeypatch.setenv(VARIABLE, str(history))
    racers = {seed: start(RACER, path, seed, build) for seed in range(RACERS)}
    started, appended = RACERS, 0
    try:
        while appended < appends:
            seed = next(iter(racers))
            racer = racers.pop(seed)
            try:
                racer.wait(0.05 if appended else 1.0)
            except subprocess.TimeoutExpired:
                racers[seed] = racer
                if path.exists() and path.stat().st_size:
                    with closing(SqliteReader(path)) as reader:
                        appended = reader.position
                continue
            assert racer.returncode == -signal.SIGKILL, racer.communicate()[1]
            racer.communicate()
            racers[started] = start(RACER, path, started, build)
            started += 1
    finally:
        for racer in racers.values():
            racer.kill()
            racer.communicate()
    return verify(str(path), history=history), started


def test_whoever_races_for_a_log_appends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure) -> None:
    report, started = raced(tmp_path, "ours", APPENDS, monkeypatch)
    assert report.sound, report.violations[:5]
    figure(f"{report.events} appends by {report.epochs} owners, {started} processes, all killed: {report.summary}")
    assert report.promised > APPENDS * 0.9 and report.epochs > 5


@pytest.mark.parametrize(("build", "promise"), [("unfenced", "writer"), ("unversioned", "chain")])
def test_a_build_in_which_several_own_a_log_is_found(
    build: str, promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    for race in range(20):  # in some they happen to come one after the other
        folder = tmp_path / str(race)
        folder.mkdir()
        report, _ = raced(folder, build, 400, monkeypatch)
        if promise in {each.invariant for each in report.violations}:
            break
    figure(f"{build}: found in race {race + 1} of 400 events, {report.summary}")
    assert promise in {each.invariant for each in report.violations}


# -- stopped, and woken when somebody else has the log --

# Talks for ever, with a tool that may not be repeated. `broken`: looks at what is there, and not at whose it is.
TALKER = """
import asyncio, os, sys
from pathlib import Path
from reenact import Runtime, tool
from reenact.adapters.logs.sqlite import SqliteLog
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.errors import ReenactError
folder = Path(sys.argv[1])
commit = SqliteLog.commit
def looks_again(log, transactions):
    log._forget()
    return commit(log, transactions)
if sys.argv[2] == "broken":
    SqliteLog._fence, SqliteLog.commit = lambda log: None, looks_again
@tool
def pay(n: int) -> str:
    "Pay."
    with open(folder / "paid", "a") as paid:
        paid.write(f"{os.getpid()} {n}\\n")
    return "paid"
numbers = iter(range(10**9))
def steps(request, seen):
    if type(request.items[-1]).__name__ == "ResultItem":
        return {"text": "done"}
    return {"tool_calls": [{"name": "pay", "input": {"n": next(numbers)}}]}
async def main():
    models = Models({"scripted": Scripted(steps)})
    async with Runtime(f"sqlite:///{folder / 'log.db'}", tools=[pay], models=models,
                       default_agent={"model": "scripted:any"}) as runtime:
        bot = await runtime.image("bot")
        while True:
            session = await runtime.new_session(bot.id)
            result = await (await runtime.send(bot.id, "go", session_id=session)).result()
            print(result.status, flush=True)
try:
    asyncio.run(main())
except ReenactError as error:
    print(error.code, flush=True)
"""


def woken(folder: Path, build: str, turns: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """Stop an owner in the middle of a turn, own its log, wake it. What it says at last, and what is wrong."""
    folder.mkdir()
    path, history = folder / "log.db", folder / "history"
    monkeypatch.setenv(VARIABLE, str(history))
    monkeypatch.setattr(recorder, "BUSY_TIMEOUT_S", 0.2)
    with running(TALKER, folder, build) as zombie:
        for _ in range(turns):
            assert line(zombie) == "succeeded"
        _stop(zombie)
        with pytest.raises(Owned, match=f"Process {zombie.pid} owns"):  # while it has its lock, nobody else does
            _goes_on(path)
        os.unlink(lock_path(str(path)))  # as somebody does who thinks that it is dead
        while True:
            try:
                _goes_on(path)
                break
            except Busy:  # stopped in the middle of a commit: then SQLite itself lets nobody in
                zombie.send_signal(signal.SIGCONT)
                line(zombie)
                _stop(zombie)
        paid = (folder / "paid").read_text().splitlines()
        with closing(SqliteReader(path)) as reader:
            before, starts = reader.position, _starts(reader)
        zombie.send_signal(signal.SIGCONT)
        said = "nothing"
        while word := zombie.stdout.readline().strip():  # type: ignore[union-attr]
            said = word
            if build == "broken" and word == "succeeded":
                break
        if build == "ours":
            zombie.wait(30)
    wrong = []
    with closing(SqliteReader(path)) as reader:
        if reader.position != before:
            wrong.append(f"it wrote {reader.position - before} events")
    more = len((folder / "paid").read_text().splitlines()) - len(paid)
    if more > 1 or len(paid) + more > starts.total():
        wrong.append(f"it started {more} tools, of {starts.total()} that are in the log")
    report = verify(str(path), history=history)
    if not report.sound:
        wrong.append(report.summary)
    return said, wrong


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def _goes_on(path: Path) -> None:
    from reenact.runtime import Runtime

    async def main() -> None:
        async with Runtime(f"sqlite:///{path}") as runtime:
            await runtime.create_container("another")

    asyncio.run(asyncio.wait_for(main(), 30))


def _starts(reader: Any) -> Counter[str]:
    found = [event for stored in reader.read_all(limit=10**6) for event in codec.unpack(stored)]
    return Counter(event.stream for event in found if isinstance(event.data, ToolStarted))


def test_an_owner_that_is_woken_after_another_took_its_log_writes_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    chance, ends = random.Random(4), Counter[str]()
    for number in range(ZOMBIES):
        said, wrong = woken(tmp_path / str(number), "ours", chance.randint(1, 12), monkeypatch)
        assert not wrong, f"zombie {number}: {wrong}"
        ends[said] += 1
    figure(f"{ZOMBIES} owners stopped and woken, which ended with {dict(ends)}, 0 violations")
    assert set(ends) == {"fenced"}


def test_a_build_that_only_looks_at_versions_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    said, wrong = woken(tmp_path / "broken", "broken", 2, monkeypatch)
    assert said != "fenced" and wrong
    figure(f"no fence: found at the first, {wrong}")
