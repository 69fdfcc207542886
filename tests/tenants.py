"""Two tenants of one runtime: what alice has, what it is called, and an office that is furnished with it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.identity.scoped import Acting
from tests.runtimes import HELLO, Heard


@tool(effect="read")
def look() -> str:
    """Look."""
    return "looked"


@tool(effect="read", approval="ask")
def pay(to: str) -> str:
    """Pay somebody, when a person says so."""
    return "paid"


class Theirs(Struct, frozen=True):
    """The names of another tenant's things, or of things that are nowhere."""

    container: str
    image: str
    name: str
    session: str
    alias: str
    agent: str
    job: str
    key: str
    call: str
    action: str
    grant: str
    token: str


_NO = "0" * 32
NOWHERE = Theirs(
    *("nothing", f"img_{_NO}", "noname", f"sess_{_NO}", "noalias", f"agent_{_NO}", f"job_{_NO}", "nokey"),
    *("t9", "a9", "a8", "no token at all"),
)
SECRET = "the-words-of-alice"


async def busy(view: Acting) -> None:
    """The other tenant says something."""
    other = view._root.scoped(scope="alice", principal="alice")
    bot = await other.image("noise", container="noise")
    await bot.send(SECRET)


class Office:
    """A runtime with two tenants in it."""

    def __init__(self, opened: Runtime) -> None:
        self.root = opened
        self.alice = opened.scoped(scope="alice", principal="alice")

    def bob(self) -> Acting:
        return self.root.scoped(scope="bob", principal="bob")

    async def furnish(self, doings: list[str]) -> Theirs:
        """What alice has, after having done this: also leave that was given, a question that waits, and a limit."""
        alice = self.alice
        bot = await alice.image("secretary", container="acme", instructions=SECRET)
        session = await alice.new_session(bot.id, alias="diary")
        bot = await alice.open_image(bot.id, session)
        sent = await bot.send(SECRET, key="once").run()
        if "wait" in doings:
            await sent.result()
        for doing in doings:
            match doing:
                case "send":
                    await bot.send(f"{SECRET} again")
                case "update":
                    await alice.update_image(bot.id, {"description": SECRET})
                case "stop":
                    await alice.stop_image(bot.id)
                case "session":
                    await alice.new_session(bot.id)
                case "other":
                    await alice.image("other", container="acme")
        await sent.result()
        await alice.set_budget({"session_id": session, "max_requests_daily": 10**6})
        agent = await alice.wake(bot.id, session)
        await bot.send("pay", model="scripted:pays-ann")
        heard = Heard(self.root)
        await alice.resolve_action(f"{session}:a1", True, always="exact")
        await heard.until("job_succeeded")
        waits = await bot.send("pay", model="scripted:pays-ben")
        token = await alice.issue_token(f"{session}:a2")
        await busy(alice)  # what it is allotted for the first time is written once
        names = ("acme", bot.id, "secretary", session, "diary", agent[0], waits.job_id, "once")
        return Theirs(*names, "t2", "a2", "a1", token)


def asking() -> Models:
    """Models of which those called `pays-…` pay somebody; all others say hello."""

    def steps(request: Any, seen: Any) -> Any:
        if not request.model.startswith("pays-") or type(request.items[-1]).__name__ == "ResultItem":
            return HELLO[0]
        return {"tool_calls": [{"name": "pay", "input": {"to": request.model}}]}

    return Models({"scripted": Scripted(steps)})
