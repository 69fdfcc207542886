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
    "ActionExpiredError": "reenact.actions",
    "ActionFilter": "reenact.actions",
    "ActionManager": "reenact.actions",
    "ActionRecord": "reenact.actions",
    "ActionRequiredError": "reenact.actions",
    "ActionSpec": "reenact.actions",
    "ActionStatus": "reenact.actions",
    "ActionType": "reenact.actions",
    "Budget": "reenact.events.budget",
    "BudgetDecision": "reenact.budgets",
    "BudgetExceededError": "reenact.budgets",
    "BudgetSpec": "reenact.events.budget",
    "ConstraintPolicy": "reenact.events.policy",
    "Authenticator": "reenact.credential",
    "CancellationToken": "reenact.context",
    "CooldownTimes": "reenact.actors.cooldown",
    "Environment": "reenact.environment",
    "ExecutionContext": "reenact.context",
    "Failover": "reenact.actors.failover",
    "ImageConfig": "reenact.events.image",
    "InMemoryLedgerWriter": "reenact.writers",
    "Ledger": "reenact.budgets",
    "LedgerEvent": "reenact.entries",
    "LedgerEventType": "reenact.entries",
    "LedgerWriter": "reenact.writers",
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
    "RunVersions": "reenact.context",
    "Runtime": "reenact.runtime",
    "RuntimeLedgerWriter": "reenact.writers",
    "Scripted": "reenact.adapters.models.scripted",
    "Secret": "reenact.events.secret",
    "Tokens": "reenact.credential",
    "ToolContext": "reenact.adapters.tools.context",
    "ToolPolicy": "reenact.events.policy",
    "UsageRecord": "reenact.entries",
    "tool": "reenact.adapters.tools.tool",
}

if TYPE_CHECKING:
    from .actions import ActionExpiredError as ActionExpiredError
    from .actions import ActionFilter as ActionFilter
    from .actions import ActionManager as ActionManager
    from .actions import ActionRecord as ActionRecord
    from .actions import ActionRequiredError as ActionRequiredError
    from .actions import ActionSpec as ActionSpec
    from .actions import ActionStatus as ActionStatus
    from .actions import ActionType as ActionType
    from .actors.cooldown import CooldownTimes as CooldownTimes
    from .actors.engine import PolicyEngine as PolicyEngine
    from .actors.failover import Failover as Failover
    from .adapters.models.scripted import Scripted as Scripted
    from .adapters.tools.context import ToolContext as ToolContext
    from .adapters.tools.tool import tool as tool
    from .budgets import BudgetDecision as BudgetDecision
    from .budgets import BudgetExceededError as BudgetExceededError
    from .budgets import Ledger as Ledger
    from .context import CancellationToken as CancellationToken
    from .context import ExecutionContext as ExecutionContext
    from .context import RunVersions as RunVersions
    from .credential import Authenticator as Authenticator
    from .credential import Tokens as Tokens
    from .entries import LedgerEvent as LedgerEvent
    from .entries import LedgerEventType as LedgerEventType
    from .entries import UsageRecord as UsageRecord
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
    from .run import Result as Result
    from .runtime import Runtime as Runtime
    from .writers import InMemoryLedgerWriter as InMemoryLedgerWriter
    from .writers import LedgerWriter as LedgerWriter
    from .writers import RuntimeLedgerWriter as RuntimeLedgerWriter
else:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'reenact' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
