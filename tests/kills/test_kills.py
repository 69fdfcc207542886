"""Real processes, killed by SIGKILL at every boundary of a turn with four tools, one of each class; and what follows.

Nothing unsafe is repeated, every call is settled or put to a person, nothing that was accepted is lost, the session can
be used, and it replays. The long tier kills at every failpoint as often as it comes by, and at random moments.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from reenact.events import failpoint
from reenact.verify import verify
from tests.conftest import LONG, Figure
from tests.kills.child import CLASSES

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork and no SIGKILL here")

KILLED = -9
EVENTS = 27
"""Events of the turn that are told, from the accepted input to the end of the job."""


class Processes:
    """The fork server."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.kills.server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "."},
        )
        assert self._server.stdout is not None and self._server.stdout.readline() == "ready\n"
        self._cases = 0

    def run(self, folder: Path, role: str, **case: Any) -> dict[str, Any]:
        self._cases += 1
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(
            json.dumps({"folder": str(folder), "role": role, "number": self._cases, **case}) + "\n"
        )
        self._server.stdin.flush()
        ended: dict[str, Any] = json.loads(self._server.stdout.readline())
        return ended

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        assert self._server.wait(30) == 0


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    processes = Processes()
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def template(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which an image waits for its first message."""
    folder = tmp_path_factory.mktemp("template")
    assert processes.run(folder, "prepare")["code"] == 0
    return folder


class World:
    """One log and what was done outside."""

    def __init__(
        self, processes: Processes, template: Path, folder: Path, broken: str | None = None, **always: Any
    ) -> None:
        self.processes = processes
        self.always = always
        self.calls: list[str] = always.get("calls") or list(CLASSES)
        self.folder = folder / "world"
        self.broken = broken
        shutil.copytree(template, self.folder)

    def run(self, role: str, **case: Any) -> dict[str, Any]:
        return self.processes.run(self.folder, role, broken=self.broken, **self.always, **case)

    def lines(self, file: str) -> list[str]:
        path = self.folder / file
        return path.read_text().splitlines() if path.exists() else []

    def resumed(self) -> dict[str, Any]:
        # A broken build may wait for ever; whoever waits for it need not.
        ended = self.run("resume", patience_s=0.5 if self.broken else 60, limit_s=150)
        assert ended["code"] == 0, ended
        said: dict[str, Any] = ended["said"]
        return said

    def judge(self, said: dict[str, Any], *, kills: int = 1) -> None:
        """Everything that must be so after a kill and a resume."""
        # Accepted is accepted: one job, and its end where one was promised.
        jobs = said["jobs"]
        assert len(jobs) == 2 and len(set(jobs)) == 2, "one message, sent again with its key, and another one"
        assert set(self.lines("accepted")) <= {jobs[0]}
        assert said["first"] == "succeeded" and said["second"] == "succeeded"
        # What was told is in the log.
        told = [line.split() for line in self.lines("told")]
        of_session = [event for stream, _, event in told if stream == f"session-{said['session']}"]
        assert set(of_session) <= set(said["events"]), "somebody was told of what is not in the log"
        # Every call was asked for once, and ended once.
        names = said["calls"]
        assert sorted(names.values()) == sorted(self.calls)
        assert Counter(tool for tool, _, _ in said["ends"]) == Counter(dict.fromkeys(names, 1))
        assert {outcome for _, outcome, _ in said["ends"]} == {"ok"}
        # What took place, counted outside.
        starts = Counter(names[tool] for tool in said["starts"])
        for name in self.calls:
            effects = self.lines(f"{name}.effects")
            asked = next(tool for tool, each in names.items() if each == name)
            assert set(effects) <= {f"{said['session']}:{asked}"}, "one key, at every attempt"
            waited = [asked, "ok", "person"] in said["ends"]
            match CLASSES[name]:
                case "unsafe":
                    assert len(effects) <= 1 and starts[name] == 1, f"{name} took place {len(effects)} times"
                    assert len(effects) == 1 or waited, "it took place, or a person was asked"
                case "probeable":
                    assert len(effects) == 1, f"{name} took place {len(effects)} times"
                    assert not waited, "the world could say"
                case _:
                    assert 1 <= len(effects) <= 1 + kills and not waited
        # The log is sound, and tells the same story again.
        assert said["replay"] == "identical" and said["flaws"] == []


@pytest.fixture
def world(processes: Processes, template: Path, tmp_path: Path) -> World:
    return World(processes, template, tmp_path)


def killed(world: World, **where: Any) -> None:
    ended = world.run("work", **where)
    assert ended["code"] == KILLED, f"it was not killed: {ended}"
    world.judge(world.resumed())


def test_without_a_kill_everything_takes_place_once(world: World) -> None:
    ended = world.run("work")
    assert ended["said"] == {"status": "succeeded", "told": EVENTS}
    world.judge(world.resumed(), kills=0)


# -- at the boundaries --


@pytest.mark.parametrize("event", range(1, EVENTS + 1))
def test_killed_when_an_event_was_told(world: World, event: int) -> None:
    killed(world, event=event)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_inside_a_tool(world: World, name: str, moment: str) -> None:
    killed(world, inside=f"{name} {moment}")


IN_A_TURN = [
    "cell.decide:2",
    "cell.decided:2",
    "cell.accepted:2",
    "group.commit:2",
    "group.committed:3",
    "group.published:3",
    "commit.begin:1",
    "commit.begun:2",
    "commit.rows:3",
    "commit.recorded:2",
    "commit.executed:1",
    "tell.begin:2",
    "tell.emitted:2",
    "tell.owed:2",
    "tell.replied:1",
    "effect.begin:1",
    "effect.begin:3",
    "effect.performed:2",
    "effect.told:1",
    "model.request:1",
    "model.answered:1",
    "signal:2",
    "tool.start:1",
    "tool.ended:1",
    "close.begin:1",
    "close.stopped:1",
    "log.close:1",
    "open.locked:1",
    "open.ready:1",
]


@pytest.mark.parametrize("place", IN_A_TURN)
def test_killed_at_a_failpoint(world: World, place: str) -> None:
    killed(world, failpoint=f"{place}:kill")


def alone(processes: Processes, template: Path, folder: Path, broken: str | None = None, **always: Any) -> World:
    """A world whose processes commit on their event loop, as they do while one session is at work: its turns have one
    call. Failpoints are those of such commits alone."""
    return World(processes, template, folder, broken, threads=None, on_loop=True, **{"calls": ["pay"], **always})


@pytest.mark.parametrize("commit", [1, 2])
@pytest.mark.parametrize("name", ["cell.decided", "commit.begin", "commit.recorded", "commit.executed", "tell.begin"])
def test_killed_while_the_loop_commits(
    processes: Processes, template: Path, tmp_path: Path, name: str, commit: int
) -> None:
    """In a commit that is the loop's own. The one who resumes commits on its loop, too."""
    killed(alone(processes, template, tmp_path), failpoint=f"{name}:{commit}:kill")


ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "a call of each class": ("work", {"calls": list(CLASSES)}),
    "a call": ("work", {}),
    "under limits": ("work", {"budget": {"max_requests_daily": 40, "max_tool_calls_daily": 40}}),
    "a limit that changes": ("work", {"budget": {"max_requests_daily": 40}, "limits": "model_called"}),
    "a call that a person allows": ("approve", {"calls": ["wire"]}),
    "a limit that a person raises": (
        "approve",
        {"calls": ["wire"], "budget": {"max_requests_daily": 0, "on_breach": "ask"}},
    ),
}
"""Turns whose commits are the loop's own: what the process is there for, and what is so in its world."""


@pytest.mark.long
@pytest.mark.parametrize("turn", ALONE)
def test_killed_at_every_failpoint_of_every_commit_of_the_loop(
    processes: Processes, template: Path, tmp_path: Path, turn: str, figure: Figure
) -> None:
    role, always = ALONE[turn]

    def begun(name: str) -> World:
        folder = tmp_path / name
        folder.mkdir()
        return alone(processes, template, folder, **always)

    passed = begun("counted").run(role, counts=True)["said"]["passed"]
    assert passed["commit.executed"] >= 1 and passed["tell.replied"] >= 1
    kills = 0
    for place in [f"{name}:{at}" for name, times in passed.items() for at in range(1, times + 1)]:
        world = begun(place)
        kills += world.run(role, failpoint=f"{place}:kill")["code"] == KILLED
        what_follows(world, role, {"always": always})
    assert kills >= sum(passed.values()) // 2, "it is hardly ever killed there"
    figure(f"on the loop, {turn}: {kills} kills at {len(passed)} failpoints, 0 violations")


def test_a_loop_that_answers_before_it_commits_is_caught(processes: Processes, template: Path, tmp_path: Path) -> None:
    world = alone(processes, template, tmp_path, "the loop answers before it commits")
    with pytest.raises(AssertionError, match="not in the log"):
        killed(world, failpoint="commit.begin:1:kill")


AROUND_MONEY = [
    "ledger.ask:1",
    "ledger.asked:1",
    *(f"{place}:{at}" for place in ("commit.begin", "commit.executed", "tell.owed") for at in range(2, 8)),
]
"""Before and behind each commit of a turn under a budget: asking, allotting, taking, setting aside, settling."""


@pytest.mark.parametrize("place", AROUND_MONEY)
def test_killed_around_money(processes: Processes, template: Path, tmp_path: Path, place: str) -> None:
    """The one who resumes verifies the log: nothing allotted past a limit, no model called without money set aside."""
    limits = {"max_requests_daily": 40, "max_tokens_total": 10**6, "max_tool_calls_daily": 40}
    killed(World(processes, template, tmp_path, budget=limits), failpoint=f"{place}:kill")


@pytest.mark.parametrize(
    "place",
    [
        "ledger.recall:1",
        "ledger.recalled:1",
        *(f"{place}:{at}" for place in ("commit.executed", "tell.owed") for at in range(5, 9)),
    ],
)
def test_killed_between_a_limit_and_what_is_called_back_for_it(
    processes: Processes, template: Path, tmp_path: Path, place: str
) -> None:
    """A limit is set at every call of the model. The one who resumes takes up what is owed, sets it back, and verifies
    that nobody went on with what was allotted before."""
    limits = {"max_requests_daily": 40, "max_tool_calls_daily": 40}
    killed(World(processes, template, tmp_path, budget=limits, limits="model_called"), failpoint=f"{place}:kill")


@pytest.mark.parametrize(
    "place",
    [
        "ledger.count:1",
        "ledger.count:2",
        "ledger.counted:1",
        *(f"{place}:{at}" for place in ("commit.executed", "tell.owed") for at in range(2, 7)),
    ],
)
def test_killed_between_the_first_limit_and_the_count_of_what_was_used_before(
    processes: Processes, template: Path, tmp_path: Path, place: str
) -> None:
    """Nothing is limited until the first call of the model is under way. The one who resumes counts what is owed, and
    verifies that it is all, and that nothing was set aside before."""
    killed(World(processes, template, tmp_path, limits="model_called"), failpoint=f"{place}:kill")


# -- at every failpoint there is, ten times and more --

KILLS = 10

ASKS = {"max_requests_daily": 0, "on_breach": "ask"}

WHERE: dict[str, dict[str, Any]] = {
    **{name: {"first": {"inside": "ship after"}, "role": "resume"} for name in ("effect.recover", "probe.start")},
    "probe.ended": {"first": {"inside": "ship after"}, "role": "resume"},
    "model.failed": {"always": {"fails": 12}},
    "ledger.ask": {"always": {"budget": {"max_requests_daily": 40}}},
    "ledger.asked": {"always": {"budget": {"max_requests_daily": 40}}},
    "ledger.raise": {"role": "approve", "always": {"calls": ["wire"], "budget": ASKS}},
    "ledger.raised": {"role": "approve", "always": {"calls": ["wire"], "budget": ASKS}},
    "ledger.recall": {"always": {"budget": {"max_requests_daily": 40}, "limits": "model_called"}},
    "ledger.recalled": {"always": {"budget": {"max_requests_daily": 40}, "limits": "model_called"}},
    "ledger.count": {"always": {"limits": "model_called"}},
    "ledger.counted": {"always": {"limits": "model_called"}},
    "launch.found": {"role": "approve", "always": {"calls": ["wire"]}},
    "socket.request": {"role": "ask", "more": {"requests": 10}},
    "socket.answer": {"role": "ask", "more": {"requests": 10}},
    "projection.commit": {"first": {}, "role": "project"},
    "projection.committed": {"first": {}, "role": "project"},
}
"""Failpoints that are not come by in any turn: what comes before, and what is being done there."""


@pytest.mark.parametrize("name", failpoint.NAMES)
def test_killed_ten_times_at_every_failpoint(
    processes: Processes, template: Path, tmp_path: Path, name: str, figure: Figure
) -> None:
    """The so-many-th time it is come by, spread over all the times that it is come by at all."""
    where = WHERE.get(name, {})
    role, more = where.get("role", "work"), where.get("more", {})
    always = {"checkpoint_pages": 2, **where.get("always", {})}

    def begun(number: int) -> World:
        folder = tmp_path / str(number)
        folder.mkdir()
        world = World(processes, template, folder, **always)
        if "first" in where:
            world.run("work", **where["first"])
        return world

    passed = begun(0).run(role, counts=True, **more)["said"]["passed"].get(name, 0)
    assert passed > 0, f"{role} never comes by {name}"
    kills = runs = 0
    while kills < KILLS:
        world, at = begun(runs + 1), 1 + runs * passed // KILLS % passed
        ended = world.run(role, failpoint=f"{name}:{at}:kill", **more)
        runs += 1
        assert runs < 3 * KILLS, f"{ended}: it is hardly ever killed there"
        kills += ended["code"] == KILLED
        what_follows(world, role, where)
    figure(f"{name}: {kills} kills, come by {passed} times a run, 0 violations")


def what_follows(world: World, role: str, where: dict[str, Any]) -> None:
    """Whatever was being done is done to its end by the next process."""
    match role:
        case "ask":
            listed = world.run("ask", requests=0)["said"]["containers"]
            assert set(world.lines("containers")) <= set(listed), "what was answered is there"
            assert verify(str(world.folder / "agents.db"), history=world.folder / "history").sound
        case "approve" if "budget" in where.get("always", {}):
            raised(world)
        case "approve":
            allowed(world)
        case "project":
            tables = world.run("project")["said"]
            assert tables["live"] == tables["rebuilt"], "what was rebuilt over a kill is not what is rebuilt at once"
        case _:
            world.judge(world.resumed(), kills=2 if "first" in where else 1)


# -- around an approval --


def allowed(world: World, *, approves: bool = True) -> dict[str, Any]:
    """What must be so of a call that a person had to allow, whenever its process died: nothing before their yes, once
    at most after it, and an end."""
    ended = world.run("approved", approves=approves)
    assert ended["code"] == 0, ended
    said: dict[str, Any] = ended["said"]
    told, outcomes = said["told"], said["outcomes"]
    assert set(world.lines("deciding")) <= {"0"}, "it took place before anybody allowed it"
    assert said["status"] == "succeeded" and said["replay"] and said["flaws"] == []
    assert {tool: told.count(f"tool_settled {tool}") for tool in said["calls"]} == dict.fromkeys(said["calls"], 1)
    asked = {tool: action for action, tool in said["asked"].items()}
    for tool, name in said["calls"].items():
        key = f"{said['session']}:{tool}"
        took, starts = world.lines(f"{name}.effects").count(key), told.count(f"tool_started {tool}")
        if name != "wire":
            assert starts == 1 and took <= 1 and outcomes[tool] == "ok"
            continue
        assert told.count(f"action_required {asked[tool]}") == told.count(f"action_resolved {asked[tool]}") == 1
        if key in said["approved"]:  # by whoever was first: it may have died before it could say so
            kinds = (f"action_resolved {asked[tool]}", f"tool_checked {tool}", f"tool_started {tool}")
            places = [told.index(kind) for kind in kinds]
            assert places == sorted(places) and starts == 1 and took <= 1 and outcomes[tool] == "ok"
        else:
            assert starts == took == 0 and outcomes[tool] == "denied"
    return said


def raised(world: World) -> None:
    """What must be so of a limit that a person raised by one each time they were asked, whoever died when: every yes
    counts once."""
    ended = world.run("approved")
    assert ended["code"] == 0, ended
    said: dict[str, Any] = ended["said"]
    assert said["status"] == "succeeded" and said["replay"] and said["flaws"] == []
    asked = list(said["asked"].values()).count(None)  # those about a limit; any other is about a call
    [[name, most, used]] = said["budget"]
    assert (name, most) == ("max_requests_daily", asked) and used <= most


AROUND = [name for name in failpoint.NAMES if name not in WHERE and not name.startswith("checkpoint.")]
AROUND.append("launch.found")
KILLED_AROUND = 10 if LONG else 1


@pytest.mark.parametrize("calls", [["wire"], ["wire", "pay", "wire"]], ids=["alone", "beside others"])
@pytest.mark.parametrize("name", AROUND)
def test_killed_around_an_approval_nothing_starts_without_it(
    processes: Processes, template: Path, tmp_path: Path, name: str, calls: list[str], figure: Figure
) -> None:
    """Killed at every failpoint of a turn that waits for a person; then looked at by one who decides nothing. Beside
    others: the question is put, a call beside it ends, one of two is answered, it is launched, it starts, and the job
    waits on for the other."""

    def begun(number: int) -> World:
        folder = tmp_path / str(number)
        folder.mkdir()
        return World(processes, template, folder, calls=calls)

    passed = begun(0).run("approve", counts=True)["said"]["passed"].get(name, 0)
    assert passed > 0, f"approve never comes by {name}"
    kills = early = number = 0
    while kills < KILLED_AROUND:
        number += 1
        assert number <= 3 * KILLED_AROUND, "it is hardly ever killed there"
        world, at = begun(number), 1 + (number * passed * 7 // 10) % passed
        kills += world.run("approve", failpoint=f"{name}:{at}:kill")["code"] == KILLED
        if number % 2:
            early += not nothing_without_a_grant(world)
        allowed(world, approves=number % 3 != 2)
    figure(f"{name}, {len(calls)} calls: {kills} kills, {early} before the grant, 0 starts without one")


def nothing_without_a_grant(world: World) -> bool:
    """Owned for a moment by one who decides nothing. Whether somebody had decided before."""
    granted: list[str] = world.run("look")["said"]["granted"]
    assert set(world.lines("wire.effects")) <= set(granted), "it started without a grant"
    return bool(granted)


def test_a_build_in_which_nobody_is_asked_is_caught(processes: Processes, template: Path, tmp_path: Path) -> None:
    world = World(processes, template, tmp_path, "nobody is asked", calls=["wire"])
    world.run("work")
    with pytest.raises(AssertionError, match="without a grant"):
        nothing_without_a_grant(world)


def test_tables_that_took_a_part_twice_are_caught(processes: Processes, template: Path, tmp_path: Path) -> None:
    """The broken build: the position is forgotten, the rows are not."""
    world = World(processes, template, tmp_path)
    world.run("work")
    world.run("project")
    with duckdb.connect(str(world.folder / "tables.duckdb")) as connection:
        connection.execute("UPDATE tool_calls SET runs = runs + 1")
    with pytest.raises(AssertionError, match="rebuilt over a kill"):
        what_follows(world, "project", {})


# -- in every window around a tool --

WINDOWS = {
    "its start is decided, and not stored": "cell.decided:2",
    "its start is stored, and nobody knows": "group.committed:2",
    "it is about to be entered": "tool.start:1",
    "it is in it, and has done nothing": "before",
    "it is in it, and has done it": "after",
    "it has returned, and that is not told": "effect.performed:2",
    "its end is decided, and not stored": "cell.decided:3",
    "its end is stored, and nobody knows": "group.committed:3",
}
TIMES = 15 if LONG else 1


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", CLASSES)
def test_killed_in_a_window_around_a_tool(
    processes: Processes, template: Path, tmp_path: Path, name: str, window: str, figure: Figure
) -> None:
    """Of each class alone, once or twice in a row, with one worker or more."""
    effects: Counter[int] = Counter()
    asked = 0
    for number in range(TIMES):
        chance = random.Random(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        world = World(processes, template, folder, calls=[name], threads=chance.choice([1, 2, 4]))
        place = WINDOWS[window]
        case = {"inside": f"{name} {place}"} if ":" not in place else {"failpoint": f"{place}:kill"}
        kills = world.run("work", **case)["code"] == KILLED
        assert kills, f"not killed where {window}"
        if chance.random() < 0.3:
            again = f"{chance.choice(['group.committed', 'cell.decided', 'effect.begin'])}:{chance.randint(1, 3)}:kill"
            kills += world.run("resume", failpoint=again)["code"] == KILLED
        said = world.resumed()
        world.judge(said, kills=kills)
        effects[len(world.lines(f"{name}.effects"))] += 1
        person = any(proof == "person" for _, _, proof in said["ends"])
        asked += person
        if kills == 1 and window.startswith(("its start is decided", "its end is stored")):
            assert not person, "nothing is in doubt there"
    figure(f"{CLASSES[name]}, {window}: {TIMES} kills, took place {dict(effects)}, {asked} put to a person")
    if CLASSES[name] == "unsafe":
        assert set(effects) <= {0, 1}


# -- killed again, while it recovers --

AGAIN = ["effect.recover:1", "group.commit:1", "commit.executed:1", "probe.start:1", "probe.ended:1", "tell.owed:1"]


@pytest.mark.parametrize("place", AGAIN)
def test_killed_again_while_it_takes_up_what_was_left(world: World, place: str) -> None:
    assert world.run("work", inside="pay after")["code"] == KILLED
    ended = world.run("resume", failpoint=f"{place}:kill")
    if place.startswith("probe"):
        assert ended["code"] in (0, KILLED)  # where the tool that can be asked about was done before the kill
    else:
        assert ended["code"] == KILLED, ended
    if ended["code"] == KILLED:
        world.judge(world.resumed(), kills=2)
    else:
        world.judge(ended["said"])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(500))
def test_killed_at_a_random_moment_and_perhaps_again(world: World, seed: int) -> None:
    chance = random.Random(seed)
    kills = 0
    if chance.random() < 0.5:
        kills += world.run("work", kill_after_s=chance.uniform(0, 0.12))["code"] == KILLED
    else:
        kills += world.run("work", inside=f"{chance.choice(list(CLASSES))} after")["code"] == KILLED
    while chance.random() < 0.4:
        ended = world.run("resume", kill_after_s=chance.uniform(0, 0.12))
        if ended["code"] == 0:
            world.judge(ended["said"], kills=kills)
            return
        kills += 1
    world.judge(world.resumed(), kills=kills)


# -- these tests can fail --


@pytest.mark.parametrize(
    ("broken", "where", "found"),
    [
        ("pay is declared idempotent", {"inside": "pay after"}, "pay took place 2 times"),
        ("an unsafe call runs again after a crash", {"inside": "pay after"}, "took place 2 times"),
        ("an earlier owner's effects are just run", {"inside": "pay after"}, "took place 2 times"),
        ("it is told before it is committed", {"failpoint": "commit.begin:1:sleep=9", "event": 6}, "not in the log"),
        ("what was owed is forgotten by the next owner", {"inside": "pay before"}, "TimeoutError"),
    ],
)
def test_a_broken_build_is_caught(
    processes: Processes, template: Path, tmp_path: Path, broken: str, where: dict[str, Any], found: str
) -> None:
    world = World(processes, template, tmp_path, broken)
    with pytest.raises(AssertionError, match=found):
        killed(world, **where)


def test_every_place_is_one_that_exists() -> None:
    for place in (*IN_A_TURN, *AGAIN):
        assert place.partition(":")[0] in failpoint.NAMES
