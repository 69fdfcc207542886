"""What binds a view of a runtime: principal, policy, budget, trace, cancellation. What is made of it keeps them."""

from __future__ import annotations

from msgspec.structs import replace

from ..actors.terms import narrower
from ..events.action import is_reserved
from ..events.budget import BudgetSpec
from ..events.errors import BadInput, Refused
from ..events.policy import PolicyRef
from .context import CancellationToken, ExecutionContext


class Bounds:
    """context: on whose behalf a view acts. traced: whether its trace is in the envelope of what is asked. shown:
    whether a token said whose it is. tokens: each of them cancels what is sent.
    """

    __slots__ = ("context", "shown", "tokens", "traced")

    def __init__(
        self,
        context: ExecutionContext,
        *,
        traced: bool,
        shown: bool = False,
        tokens: tuple[CancellationToken, ...] | None = None,
    ) -> None:
        self.context = context
        self.traced = traced
        self.shown = shown
        self.tokens = (context.cancellation,) if tokens is None else tokens

    def under(self, principal: str | None) -> Bounds:
        """The same, for a principal of the same scope. Raises Refused, see `_check_principal`."""
        context = self.context if principal is None else replace(self.context, principal_id=principal)
        self._check_principal(context.principal_id)
        return Bounds(context, traced=self.traced, shown=self.shown, tokens=self.tokens)

    def within(self, context: ExecutionContext) -> Bounds:
        """Those of a context, within these: what it leaves open is as here, and what it says may only be narrower.

        Raises Refused for another scope or a principal that is not to be had here, BadInput for another policy.
        """
        own = self.context
        if context.scope_id != own.scope_id:
            raise Refused("A view of one scope cannot become another's; ask the runtime itself.")
        self._check_principal(context.principal_id)
        context = replace(
            context,
            policy_ref=_policy(own.policy_ref, context.policy_ref),
            budgets=lower(own.budgets, context.budgets),
        )
        if self.traced and context.trace_id != own.trace_id:
            context = replace(context, trace_id=own.trace_id, parent_span_id=own.span_id)
        tokens = self.tokens if context.cancellation in self.tokens else (*self.tokens, context.cancellation)
        return Bounds(context, traced=True, shown=self.shown, tokens=tokens)

    def _check_principal(self, principal: str) -> None:
        """Raises Refused for another principal where a token said who this is, and always for a reserved one."""
        if principal == self.context.principal_id:
            return
        if self.shown:
            raise Refused("What a token gave acts for its principal and for no other; ask the runtime itself.")
        if is_reserved(principal):
            raise Refused(f"No view becomes {principal[:60]!a}, which is reserved; ask the runtime itself.")


def _policy(own: PolicyRef | None, given: PolicyRef | None) -> PolicyRef | None:
    if own is None or given is None or given == own:
        return given or own
    if own.overrides or (given.name, given.version) != (own.name, own.version):
        raise BadInput(f"This context is held to the policy {own.name}: one made from it names no other.")
    return given  # the same policy, and what narrows it


def lower(own: BudgetSpec | None, given: BudgetSpec | None) -> BudgetSpec | None:
    """Of every limit the lower one. There is one word about breaches for all its limits: a `deny` holds for each."""
    if own is None or given is None or own == given:
        return own or given
    lowest = narrower(own, given)
    assert lowest is not None
    return replace(lowest, on_breach="deny" if "deny" in (own.on_breach, given.on_breach) else "ask")
