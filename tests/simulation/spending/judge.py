"""The bills of the provider held against the limits: after every bill and every batch, and once more at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reenact.actors import book
from reenact.actors.balance import Balance, Changes
from reenact.actors.book import Account
from reenact.events.budget import LIMITS, NOTHING, UNCOUNTED, Amount
from reenact.events.ledger import AllotmentDenied
from reenact.events.message import Recorded

if TYPE_CHECKING:
    from .world import World


class Overspent(AssertionError):
    """More was billed than there was."""


class Starved(AssertionError):
    """Somebody was denied what nobody used."""


class Disobeyed(AssertionError):
    """A session went on with what was allotted before a limit was changed."""


class Judge:
    """What it finds wrong ends the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.denied = 0
        self._changes = Changes()
        self._balances: dict[str, Balance] = {}

    def see(self, stream: str, events: list[Recorded]) -> None:
        """A batch was written."""
        self.nothing_is_overspent()
        for recorded in events:
            for what in self._balances.setdefault(stream, Balance(self._changes)).see(recorded):
                self.world.failure = Disobeyed(what)
            if isinstance(recorded.data, AllotmentDenied):
                self.denied += 1
                self._it_is_used_up(recorded.data)

    def nothing_is_overspent(self) -> None:
        """What was billed keeps to every limit, and so does what the ledger counts."""
        world, limits, evidence = self.world, self.world.limits, self.world.evidence
        if not limits.limited:
            return
        for limit, most in book.standing_of(limits.budget).limits:
            billed, most = getattr(world.provider.billed, limit.of), max(most, getattr(evidence.before, limit.of))
            most += getattr(evidence.late, limit.of)
            unheard = world.provider.billed_free - evidence.used_free
            most += getattr(unheard, limit.of)  # what nobody lived to hear of
            if billed > most:
                world.failure = Overspent(f"{limit.name}: {billed} billed of {most}")
            state = world.log.ledger
            settled, out = book.used_of(state, state.budgets[0], limit, 0)
            if settled + out > most and not limits.changed and not world.free:
                # Else what was under way then may be told later.
                world.failure = Overspent(f"{limit.name}: {settled} settled and {out} set aside of {most}")
        for limit, most in limits.of_bob.limits if limits.of_bob is not None else ():
            billed = getattr(world.provider.billed_to.get("bob", NOTHING), limit.of)
            if limit.window == "minute":
                billed = world.provider.calls_of_bob_since(world.passed - 60_000_000)
            if billed > most:
                world.failure = Overspent(f"{limit.name} of bob: {billed} billed of {most}")

    def _it_is_used_up(self, denial: AllotmentDenied) -> None:
        """Who is denied something is denied what sessions have really used, or are using."""
        evidence, breach = self.world.evidence, denial.breach
        assert breach.code != UNCOUNTED, "nobody waited so long"
        of = next(limit.of for limit in LIMITS if limit.name == breach.limit)
        used, using = (getattr(amount, of) for amount in evidence.used())
        if breach.limit == "max_requests_per_minute":
            return  # of several calls that are told together the newest says when they were made
        if breach.of == "principal":
            used = getattr(evidence.used_by.get(denial.principal_id, NOTHING), of)
        surely = using if of == "requests" else 0  # a call under way may cost less, but it is one
        accounts, left = self.world.log.ledger.accounts, self.world.kernel.left
        # What an earlier process left was taken up later, and whoever asked before does not wait for it.
        surely += sum(getattr(account.held, of) for name, account in accounts.items() if name in left)
        if used + surely + breach.wanted <= breach.most:
            what = f"{used} of {breach.most} are used, and {using} set aside for calls under way"
            self.world.failure = Starved(f"{denial.session_id} is denied {breach.wanted} {of}: {what}")

    def all_is_counted(self) -> None:
        """Every job has ended, and once all is given back the ledger has counted at least what was billed."""
        world, provider, evidence = self.world, self.world.provider, self.world.evidence
        state = world.log.ledger
        for stream, (session, agent, *_) in world.log.sessions:
            assert session.running is None, f"{stream} never ended"
            purse = agent.purse
            if purse is None:
                continue
            account: Account | None = state.accounts.get(stream.removeprefix("session-"))
            if account is not None:
                state = book.settled(state, stream.removeprefix("session-"), "ann", purse.spent, NOTHING, 0)
        sums = state.sums.get(book.SCOPE)
        counted = sums.total if sums is not None else NOTHING
        used_free = evidence.used_free - Amount(requests=evidence.unasked)
        known = provider.billed - provider.billed_free - Amount(tools=used_free.tools) + used_free
        if not counted.covers(known):
            raise Overspent(f"{counted} was counted and {known} billed")
        told = sum(state.counted.values(), NOTHING)
        most = evidence.used_free + evidence.used_apart
        is_told = told.covers(used_free + (evidence.used_apart - evidence.lost_unasked)) and most.covers(told)
        if world.free and (not is_told or state.counting or state.open):
            raise Overspent(f"{told} was counted of {most} that nothing was set aside for")
        for whose, billed in provider.billed_to.items() if world.several else ():
            his = state.sums.get(("principal", whose), book.NO_SUMS).total
            if not his.covers(billed) or not evidence.used_by[whose].covers(his):
                raise Overspent(f"{his} was counted for {whose}, {billed} billed and {evidence.used_by[whose]} used")
        assert sums is None or sums.out == NOTHING, f"{sums.out} is set aside for nobody"
        assert world.free or state.overrun == NOTHING, f"sessions spent {state.overrun} beyond what they were allotted"
        self.nothing_is_overspent()
        for stream, _, what in self._changes.found():
            raise Disobeyed(f"{stream}: {what}")
