"""`@tool`: a function that a model may call, with everything that must be known of it before it is called.

Imports events only. Checks and describes; running a call is `runner`'s affair, and whether it may run is decided
elsewhere.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar, get_args, overload

import msgspec

from ...events.message import digest, show_digest
from ...events.tool import Approval, EffectClass, ToolSpec
from .arguments import MAX_ARGUMENTS_BYTES, BadArguments, check_arguments, flaw
from .context import ToolContext
from .errors import ToolDefinitionError
from .output import MAX_OUTPUT_BYTES, MIN_OUTPUT_BYTES
from .parameters import Function, read_parameters, read_probe

__all__ = ["tool", "Tool", "ToolContext", "ToolSpec", "ToolDefinitionError", "BadArguments"]

TIMEOUT_S = 60.0
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)

VARIABLES_MAX = 32
"""Most variables that one tool depends on."""

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
F = TypeVar("F", bound=Function)


class Tool(Generic[P, R]):
    """A function with its `ToolSpec`. Calling it calls the function, as if it were not decorated.

    spec: what models are told and the log records. function: as written. max_output_bytes, max_arguments_bytes:
    bounds of one call. environ: names of the variables that what it does depends on. Made by `tool`.
    """

    spec: ToolSpec
    function: Callable[P, R]
    probe_function: Function | None
    max_output_bytes: int
    max_arguments_bytes: int
    environ: tuple[str, ...]
    __name__: str

    def __init__(
        self,
        function: Callable[P, R],
        *,
        scope: types.FrameType | None,
        name: str | None,
        description: str | None,
        effect: EffectClass,
        approval: Approval,
        timeout_s: float,
        max_output_bytes: int,
        max_arguments_bytes: int,
        probe: Function | types.EllipsisType | None,
        source: str,
        environ: Iterable[str] = (),
    ) -> None:
        name = _checked_name(function, name)
        _check_options(
            name,
            effect=effect,
            approval=approval,
            timeout_s=timeout_s,
            max_output_bytes=max_output_bytes,
            max_arguments_bytes=max_arguments_bytes,
        )
        self.parameters, documented = read_parameters(function, name=name, scope=scope)
        described = documented if description is None else description
        face = {"description": described, "parameters": self.parameters.schema, "source": source}
        if found := flaw(face):
            raise ToolDefinitionError(f"Tool {name!r} cannot be described to a model: {found[1]} at {found[0]}.")
        spec = ToolSpec(
            name=name,
            description=described,
            parameters=self.parameters.schema,
            effect=effect,
            approval=approval,
            timeout_s=float(timeout_s),
            source=source,
        )
        self.environ = _checked_environ(name, environ)
        self.spec = msgspec.structs.replace(spec, version=version_of(spec, self.environ))
        self.function = function
        self.max_output_bytes = max_output_bytes
        self.max_arguments_bytes = max_arguments_bytes
        self.is_async = inspect.iscoroutinefunction(function)
        self.probe_function = None
        self._probe_takes: dict[str, str] = {}
        if isinstance(probe, types.EllipsisType):
            if effect != "probeable":
                raise ToolDefinitionError(f"Tool {name!r} is {effect}: only a probeable tool has a probe.")
        elif probe is not None:
            self._attach(probe, scope)
        elif effect == "probeable":
            raise ToolDefinitionError(
                f"Tool {name!r} is probeable and has no probe: pass `probe=function`, "
                f"or `probe=...` and put `@{name}.probe` on one below."
            )
        functools.update_wrapper(self, function, updated=())

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name} ({self.spec.effect})>"

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def version(self) -> str:
        return self.spec.version

    @property
    def repeatable(self) -> bool:
        """Whether a call may be run again when nobody knows if it took effect."""
        return self.spec.effect in ("read", "idempotent")

    def probe(self, function: F) -> F:
        """Decorator: the function that says whether a call in doubt took effect. It returns None or False when it did
        not, True when it did, or the output of the call that did; whatever it raises means that it cannot say.

        It may take any of the tool's parameters by name, `key` (the idempotency key), and a `ToolContext`.
        """
        self._attach(function, sys._getframe(1))
        return function

    def check(self) -> None:
        """Raise `ToolDefinitionError` if it cannot be offered yet: probeable, with `probe=...` and none attached."""
        if self.spec.effect == "probeable" and self.probe_function is None:
            raise ToolDefinitionError(
                f"Tool {self.name!r} is probeable and its probe was never attached: use `@{self.name}.probe`."
            )

    def validate(self, arguments: object) -> dict[str, Any] | BadArguments:
        """The keyword arguments to call it with, of the types its function declares, or what is wrong, for the model.

        Strict: nothing is coerced, unknown arguments are refused. The values are copies. See `arguments`.
        """
        return check_arguments(arguments, self.parameters, name=self.name, max_bytes=self.max_arguments_bytes)

    def probe_arguments(self, arguments: object, context: ToolContext) -> dict[str, Any] | BadArguments:
        """What to call `probe_function` with for a call of these arguments."""
        checked = self.validate(arguments)
        if isinstance(checked, BadArguments):
            return checked
        handed: dict[str, Any] = {}
        for name, kind in self._probe_takes.items():
            if kind == "key":
                handed[name] = context.idempotency_key
            elif kind == "context":
                handed[name] = context
            else:
                handed[name] = checked[name] if name in checked else self.parameters.defaults[name]
        return handed

    def _attach(self, function: Function, scope: types.FrameType | None) -> None:
        if self.spec.effect != "probeable":
            raise ToolDefinitionError(f"Tool {self.name!r} is {self.spec.effect}: only a probeable tool has a probe.")
        if self.probe_function is not None:
            raise ToolDefinitionError(f"Tool {self.name!r} has a probe already.")
        if not (inspect.isfunction(function) or inspect.ismethod(function)):
            raise ToolDefinitionError(f"Tool {self.name!r}: its probe must be a function, not {function!r}.")
        self._probe_takes = read_probe(function, self.parameters, name=self.name, scope=scope)
        self.probe_function = function


@overload
def tool(
    function: Callable[P, R],
    /,
    *,
    name: str | None = ...,
    description: str | None = ...,
    effect: EffectClass = ...,
    approval: Approval = ...,
    timeout_s: float = ...,
    max_output_bytes: int = ...,
    max_arguments_bytes: int = ...,
    probe: Function | types.EllipsisType | None = ...,
    source: str = ...,
    environ: Iterable[str] = ...,
) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = ...,
    description: str | None = ...,
    effect: EffectClass = ...,
    approval: Approval = ...,
    timeout_s: float = ...,
    max_output_bytes: int = ...,
    max_arguments_bytes: int = ...,
    probe: Function | types.EllipsisType | None = ...,
    source: str = ...,
    environ: Iterable[str] = ...,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    effect: EffectClass = "unsafe",
    approval: Approval = "never",
    timeout_s: float = TIMEOUT_S,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
    max_arguments_bytes: int = MAX_ARGUMENTS_BYTES,
    probe: Function | types.EllipsisType | None = None,
    source: str = "code",
    environ: Iterable[str] = (),
) -> Any:
    """Make a function a tool: `@tool`, `@tool(effect="read")`, or `tool(thing.method)`. It stays callable as it was.

    The model is told its name, the text of its docstring, and its parameters: types from the hints, descriptions from
    the docstring (Google, numpy or reST) or from `Annotated[str, "…"]`. Every parameter needs a type; `*args`,
    `**kwargs` and positional-only ones are refused. One annotated with `ToolContext` is handed the call and not
    shown. Sync functions run on a thread of a pool, async ones on the event loop.

    effect: what may be done when nobody knows whether a call took effect: `read` and `idempotent` are repeated (the
    latter with the same key), `probeable` is settled by its `probe`, `unsafe` is left to a person. approval: `ask`
    has a person allow each call. timeout_s: how long one run may take. max_output_bytes: what of its text is kept.
    environ: names of environment variables that what it does depends on; an approval covers what they say.

    Raises `ToolDefinitionError` (a TypeError) naming the tool and what to change.
    """
    options: dict[str, Any] = {
        "name": name,
        "description": description,
        "effect": effect,
        "approval": approval,
        "timeout_s": timeout_s,
        "max_output_bytes": max_output_bytes,
        "max_arguments_bytes": max_arguments_bytes,
        "probe": probe,
        "source": source,
        "environ": environ,
    }
    if function is not None:
        return Tool(function, scope=sys._getframe(1), **options)
    return lambda decorated: Tool(decorated, scope=sys._getframe(1), **options)


def version_of(spec: ToolSpec, environ: tuple[str, ...] = ()) -> str:
    """Digest over what a call depends on: name, description, parameters, effect, approval, timeout, the names of its
    variables. Its source is not part of it."""
    face: tuple[Any, ...] = (
        *(spec.name, spec.description, spec.parameters, spec.effect, spec.approval, spec.timeout_s),
        *((environ,) if environ else ()),
    )
    return show_digest(digest(msgspec.json.encode(face, order="sorted")))


def _checked_name(function: object, name: str | None) -> str:
    if isinstance(function, Tool):
        raise ToolDefinitionError(
            f"{function.name!r} is a tool already. For a second one write tool({function.name}.function, name=…)."
        )
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise ToolDefinitionError(f"A tool must be a function or a bound method, not {function!r}.")
    found = function.__name__ if name is None else name
    if not isinstance(found, str) or not _NAME.fullmatch(found):
        raise ToolDefinitionError(
            f"Tool {found!r}: a name is 1 to 64 ASCII letters, digits, `_` and `-`. Pass another as name=…."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ToolDefinitionError(
            f"Tool {found!r} yields. A tool returns one result; tell of progress with ToolContext.progress."
        )
    return found


def _checked_environ(name: str, given: Iterable[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    for each in names:
        if not isinstance(each, str) or not _VARIABLE.fullmatch(each):
            raise ToolDefinitionError(f"Tool {name!r}: environ has {each!r}, which is no name of a variable.")
    if len(names) > VARIABLES_MAX:
        raise ToolDefinitionError(
            f"Tool {name!r}: environ names {len(names)} variables; at most {VARIABLES_MAX} are read."
        )
    return tuple(sorted(set(names)))


def _check_options(
    name: str,
    *,
    effect: object,
    approval: object,
    timeout_s: object,
    max_output_bytes: object,
    max_arguments_bytes: object,
) -> None:
    if effect not in get_args(EffectClass):
        raise ToolDefinitionError(f"Tool {name!r}: effect {effect!r} is none of {', '.join(get_args(EffectClass))}.")
    if approval not in get_args(Approval):
        raise ToolDefinitionError(f"Tool {name!r}: approval {approval!r} is none of {', '.join(get_args(Approval))}.")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        raise ToolDefinitionError(f"Tool {name!r}: timeout_s {timeout_s!r} is no number of seconds above 0.")
    for option, value, least in (
        ("max_output_bytes", max_output_bytes, MIN_OUTPUT_BYTES),
        ("max_arguments_bytes", max_arguments_bytes, 2),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ToolDefinitionError(f"Tool {name!r}: {option} {value!r} is no whole number of at least {least}.")
