"""What the screen of a long `resume` holds: what is still open, and nothing of what is over."""

from __future__ import annotations

import io

from reenact.adapters.cli.output import Output
from reenact.adapters.cli.screen import Screen
from reenact.events.action import ActionExpired, ActionRequired, ActionResolved
from reenact.events.purse import BudgetWarned
from tests.histories import History, call


def watched(turns: int) -> tuple[Screen, str]:
    """A screen, and its last answer, after turns in which a person changes one call and leaves another unanswered."""
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(Output(out, err))
    history = History()
    for turn in range(turns):
        history.send("Refund it.").answers("Let me.", call("refund", order=turn), call("look", at="x" * 100))
        first, second = history.open
        asked = [
            ActionRequired(action=f"a{2 * turn + n}", kind="approval", timeout_ms=1000, job_id=history.job, tool=tool)
            for n, tool in enumerate((first, second))
        ]
        history.batch("answer_model", *asked)
        changed = {"approved": True, "arguments": {"order": 7}}
        history.batch("resolve_action", ActionResolved(action=asked[0].action, resolution=changed, at=0, by="user"))
        history.batch("expire_action", ActionExpired(action=asked[1].action))
        history.settles(first).settles(second).answers("Done.")
    for recorded in history:
        screen.feed(recorded)
    return screen, screen.said


def test_a_screen_holds_no_more_after_many_turns() -> None:
    few, said = watched(3)
    many, last = watched(300)
    assert said == last == "Done."
    assert len(repr(vars(many))) < len(repr(vars(few))) + 200


def test_given_calls_that_pass_the_same_limit_when_they_are_watched_then_it_is_said_once_and_another_is_said_too() -> (
    None
):
    out, err = io.StringIO(), io.StringIO()
    screen, history = Screen(Output(out, err), label="s1"), History()
    for limits in (("a",), ("a",), ("a", "b"), (), ("a",)):
        history.batch("call_model", BudgetWarned(limits=limits))
    for recorded in history:
        screen.feed(recorded)
    said = "reenact: s1  nearly used up, or passed: "
    assert (out.getvalue(), err.getvalue().splitlines()) == ("", [f"{said}a", f"{said}a, b", f"{said}a"])
