"""The front door: the public names, each loaded from its room when it is first asked for.

`import reenact` therefore loads no provider SDK, no DuckDB and no terminal library. Only this folder sees all four
rooms.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "ActionExpiredError",
    "ActionFilter",
    "ActionManager",
    "ActionRecord",
    "ActionRequiredError",
    "ActionSpec",
    "ActionStatus",
    "ActionType",
    "Budget",
    "BudgetDecision",
    "BudgetExceededError",
    "BudgetSpec",
    "ConstraintPolicy",
    "Authenticator",
    "CancellationToken",
    "CooldownTimes",
    "Environment",
    "ExecutionContext",
    "Failover",
    "ImageConfig",
    "InMemoryLedgerWriter",
    "Ledger",
    "LedgerEvent",
    "LedgerEventType",
    "LedgerWriter",
    "ModelParams",
    "ModelPolicy",
    "Policy",
    "PolicyContext",
    "PolicyDecision",
    "PolicyDenied",
    "PolicyEngine",
    "PolicyRef",
    "PolicyResult",
    "PolicyRule",
    "Profile",
    "ReenactError",
    "Result",
    "RunVersions",
    "Runtime",
    "RuntimeLedgerWriter",
    "Scripted",
    "Secret",
    "Tokens",
    "ToolContext",
    "ToolPolicy",
    "UsageRecord",
    "__version__",
    "tool",
]

# Public name -> the module it lives in. Type checkers cannot follow the table and read the imports below it.
_HOMES = {
    "ActionExpiredError": "reenact.people.actions",
    "ActionFilter": "reenact.people.actions",
    "ActionManager": "reenact.people.actions",
    "ActionRecord": "reenact.people.actions",
    "ActionRequiredError": "reenact.people.actions",
    "ActionSpec": "reenact.people.actions",
    "ActionStatus": "reenact.people.actions",
    "ActionType": "reenact.people.actions",
    "Budget": "reenact.events.budget",
    "BudgetDecision": "reenact.money.budgets",
    "BudgetExceededError": "reenact.money.budgets",
    "BudgetSpec": "reenact.events.budget",
    "ConstraintPolicy": "reenact.events.policy",
    "Authenticator": "reenact.identity.credential",
    "CancellationToken": "reenact.identity.context",
    "CooldownTimes": "reenact.actors.cooldown",
    "Environment": "reenact.environment",
    "ExecutionContext": "reenact.identity.context",
    "Failover": "reenact.actors.failover",
    "ImageConfig": "reenact.events.image",
    "InMemoryLedgerWriter": "reenact.money.writers",
    "Ledger": "reenact.money.budgets",
    "LedgerEvent": "reenact.money.entries",
    "LedgerEventType": "reenact.money.entries",
    "LedgerWriter": "reenact.money.writers",
    "ModelParams": "reenact.events.model",
    "ModelPolicy": "reenact.events.policy",
    "Policy": "reenact.events.policy",
    "PolicyContext": "reenact.events.policy",
    "PolicyDecision": "reenact.events.policy",
    "PolicyDenied": "reenact.events.errors",
    "PolicyEngine": "reenact.actors.engine",
    "PolicyRef": "reenact.events.policy",
    "PolicyResult": "reenact.events.policy",
    "PolicyRule": "reenact.events.policy",
    "Profile": "reenact.events.policy",
    "ReenactError": "reenact.events.errors",
    "Result": "reenact.run",
    "RunVersions": "reenact.identity.context",
    "Runtime": "reenact.runtime",
    "RuntimeLedgerWriter": "reenact.money.writers",
    "Scripted": "reenact.adapters.models.scripted",
    "Secret": "reenact.events.secret",
    "Tokens": "reenact.identity.credential",
    "ToolContext": "reenact.adapters.tools.context",
    "ToolPolicy": "reenact.events.policy",
    "UsageRecord": "reenact.money.entries",
    "tool": "reenact.adapters.tools.tool",
}

if TYPE_CHECKING:
    from .actors.cooldown import CooldownTimes as CooldownTimes
    from .actors.engine import PolicyEngine as PolicyEngine
    from .actors.failover import Failover as Failover
    from .adapters.models.scripted import Scripted as Scripted
    from .adapters.tools.context import ToolContext as ToolContext
    from .adapters.tools.tool import tool as tool
    from .environment import Environment as Environment
    from .events.budget import Budget as Budget
    from .events.budget import BudgetSpec as BudgetSpec
    from .events.errors import PolicyDenied as PolicyDenied
    from .events.errors import ReenactError as ReenactError
    from .events.image import ImageConfig as ImageConfig
    from .events.model import ModelParams as ModelParams
    from .events.policy import ConstraintPolicy as ConstraintPolicy
    from .events.policy import ModelPolicy as ModelPolicy
    from .events.policy import Policy as Policy
    from .events.policy import PolicyContext as PolicyContext
    from .events.policy import PolicyDecision as PolicyDecision
    from .events.policy import PolicyRef as PolicyRef
    from .events.policy import PolicyResult as PolicyResult
    from .events.policy import PolicyRule as PolicyRule
    from .events.policy import Profile as Profile
    from .events.policy import ToolPolicy as ToolPolicy
    from .events.secret import Secret as Secret
    from .identity.context import CancellationToken as CancellationToken
    from .identity.context import ExecutionContext as ExecutionContext
    from .identity.context import RunVersions as RunVersions
    from .identity.credential import Authenticator as Authenticator
    from .identity.credential import Tokens as Tokens
    from .money.budgets import BudgetDecision as BudgetDecision
    from .money.budgets import BudgetExceededError as BudgetExceededError
    from .money.budgets import Ledger as Ledger
    from .money.entries import LedgerEvent as LedgerEvent
    from .money.entries import LedgerEventType as LedgerEventType
    from .money.entries import UsageRecord as UsageRecord
    from .money.writers import InMemoryLedgerWriter as InMemoryLedgerWriter
    from .money.writers import LedgerWriter as LedgerWriter
    from .money.writers import RuntimeLedgerWriter as RuntimeLedgerWriter
    from .people.actions import ActionExpiredError as ActionExpiredError
    from .people.actions import ActionFilter as ActionFilter
    from .people.actions import ActionManager as ActionManager
    from .people.actions import ActionRecord as ActionRecord
    from .people.actions import ActionRequiredError as ActionRequiredError
    from .people.actions import ActionSpec as ActionSpec
    from .people.actions import ActionStatus as ActionStatus
    from .people.actions import ActionType as ActionType
    from .run import Result as Result
    from .runtime import Runtime as Runtime
else:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'reenact' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
