"""What must be so of a world in which processes were killed.

Nothing unsafe is repeated, every call is settled or put to a person, nothing that was accepted is lost, the session can
be used, and it replays.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from reenact.cli.verify import verify
from tests.kills.child import CLASSES
from tests.kills.processes import KILLED
from tests.kills.world import World


def killed(world: World, **where: Any) -> None:
    """It is killed there, and the next process takes up what it left."""
    ended = world.run("work", **where)
    assert ended["code"] == KILLED, f"it was not killed: {ended}"
    judge(world, world.resumed())


def judge(world: World, said: dict[str, Any], *, kills: int = 1) -> None:
    """Everything that must be so after a kill and a resume."""
    # Accepted is accepted: one job, and its end where one was promised.
    jobs = said["jobs"]
    assert len(jobs) == 2 and len(set(jobs)) == 2, "one message, sent again with its key, and another one"
    assert set(world.lines("accepted")) <= {jobs[0]}
    assert said["first"] == "succeeded" and said["second"] == "succeeded"
    # What was told is in the log.
    told = [line.split() for line in world.lines("told")]
    of_session = [event for stream, _, event in told if stream == f"session-{said['session']}"]
    assert set(of_session) <= set(said["events"]), "somebody was told of what is not in the log"
    # Every call was asked for once, and ended once.
    names = said["calls"]
    assert sorted(names.values()) == sorted(world.calls)
    assert Counter(tool for tool, _, _ in said["ends"]) == Counter(dict.fromkeys(names, 1))
    assert {outcome for _, outcome, _ in said["ends"]} == {"ok"}
    # What took place, counted outside.
    starts = Counter(names[tool] for tool in said["starts"])
    for name in world.calls:
        effects = world.lines(f"{name}.effects")
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
            judge(world, world.resumed(), kills=2 if "first" in where else 1)


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
    assert said["replay"] and said["flaws"] == []
    asked = list(said["asked"].values()).count(None)  # those about a limit; any other is about a call
    [[name, most, used]] = said["budget"]
    if said["status"] != "succeeded":
        # Who died in a call of the model has used it, and between two attempts at a call nobody is asked.
        assert (said["status"], said["failure"], used) == ("failed", "budget_exceeded", most), said
    assert (name, most) == ("max_requests_daily", asked) and used <= most


def nothing_without_a_grant(world: World) -> bool:
    """Owned for a moment by one who decides nothing. Whether somebody had decided before."""
    granted: list[str] = world.run("look")["said"]["granted"]
    assert set(world.lines("wire.effects")) <= set(granted), "it started without a grant"
    return bool(granted)
