"""What a function takes, read once from its hints and its docstring: the JSON schema for the model, the check for a
call.

Both come from one msgspec Struct, so they cannot disagree. Home of docstring-parser. Never calls the function.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Optional, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, Struct

from ...events.shape import passing_json_decoder
from .arguments import flaw
from .context import ToolContext
from .errors import ToolDefinitionError

Function = Callable[..., Any]
_NAME = re.compile(r"[a-zA-Z0-9_]{1,64}", re.ASCII)


class Parameters:
    """The parameters of one tool.

    names: what a model may send, in order. required: those without a default. known: `names`, as a set.
    schema: JSON schema, an object at its root. summary: one sentence that lists them. defaults: of those not required.
    context: the parameter that gets the `ToolContext`, or None.
    """

    __slots__ = ("_decode", "context", "defaults", "known", "names", "required", "schema", "summary")

    def __init__(
        self, fields: list[tuple[str, Any]], defaults: dict[str, Any], context: str | None, *, name: str
    ) -> None:
        self.names = tuple(field for field, _ in fields)
        self.known = frozenset(self.names)
        self.required = self.known - defaults.keys()
        self.defaults = defaults
        self.context = context
        struct, self.schema = _struct(name, fields, defaults)
        self._decode = passing_json_decoder(struct)
        takes = ", ".join(f"{each} ({'required' if each in self.required else 'optional'})" for each in self.names)
        self.summary = f"It takes {takes}." if takes else "It takes no arguments."

    def decode(self, raw: bytes) -> Struct:
        """The arguments as one record, UNSET where none was sent. Raises `msgspec.ValidationError`."""
        arguments: Struct = self._decode(raw)
        return arguments


def read_parameters(function: Function, *, name: str, scope: types.FrameType | None = None) -> tuple[Parameters, str]:
    """Read a function's signature, hints and docstring: what it takes, and what it says it does.

    scope: the frame in which it was declared; types that are local there can be resolved.
    Raises `ToolDefinitionError` naming the parameter that a model could not be told of.
    """
    description, documented = _read_docstring(function)
    context: str | None = None
    fields: list[tuple[str, Any]] = []
    defaults: dict[str, Any] = {}
    for parameter in _signature(function, f"Tool {name!r}"):
        hint = _hint(parameter, function, label=f"Tool {name!r}", scope=scope)
        if _is_context(hint):
            if context is not None:
                raise ToolDefinitionError(
                    f"Tool {name!r} has two parameters for its context: {context!r}, {parameter.name!r}."
                )
            context = parameter.name
            continue
        said = _description(hint, documented.get(parameter.name))
        if parameter.default is not parameter.empty:
            defaults[parameter.name] = parameter.default
            if parameter.default is None and not _takes_none(hint):
                hint = Optional[hint]  # noqa: UP045 - hint is a value here, and may be one that has no `|`
        fields.append((parameter.name, Annotated[hint, Meta(description=said)] if said else hint))
    return Parameters(fields, defaults, context, name=name), description


def read_probe(
    function: Function, parameters: Parameters, *, name: str, scope: types.FrameType | None = None
) -> dict[str, str]:
    """What to hand a probe: its parameter's name to `argument`, `key` or `context`.

    A probe may take any of its tool's parameters by name, the idempotency key as `key` or `idempotency_key`, and a
    parameter annotated with `ToolContext`. Raises `ToolDefinitionError` where it asks for more.
    """
    label = f"The probe of tool {name!r}"
    takes: dict[str, str] = {}
    for parameter in _signature(function, label):
        if parameter.name in parameters.known:
            takes[parameter.name] = "argument"
        elif _is_context(_hint(parameter, function, label=label, scope=scope, default=object)):
            takes[parameter.name] = "context"
        elif parameter.name in ("key", "idempotency_key"):
            takes[parameter.name] = "key"
        elif parameter.default is parameter.empty:
            raise ToolDefinitionError(
                f"{label} asks for {parameter.name!r}; it can have the tool's own parameters "
                f"({', '.join(parameters.names) or 'none'}), `key`, or one annotated with ToolContext."
            )
    return takes


def _signature(function: Function, label: str) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())
    for each in parameters:
        if each.kind is each.VAR_POSITIONAL or each.kind is each.VAR_KEYWORD:
            shown = str(each).partition(":")[0]
            raise ToolDefinitionError(f"{label}: {shown} cannot be described to a model. Name each parameter.")
        if each.kind is each.POSITIONAL_ONLY:
            raise ToolDefinitionError(
                f"{label}: {each.name!r} is positional-only, and arguments come by name. Drop the `/`."
            )
    return parameters


def _hint(
    parameter: inspect.Parameter, function: Function, *, label: str, scope: types.FrameType | None, default: Any = None
) -> Any:
    """The parameter's type. One without is `default`; without a default too it is refused."""
    if parameter.annotation is parameter.empty:
        if default is not None:
            return default
        # Not `Any`: a model would be told nothing and anything would be run. Who means that can write it.
        if parameter.name in ("self", "cls"):
            raise ToolDefinitionError(f"{label} is a method. Declare it on the object instead: tool(thing.method).")
        raise ToolDefinitionError(
            f"{label}: parameter {parameter.name!r} has no type. Write one, say `{parameter.name}: str`, or `Any`."
        )
    inner: Any = inspect.unwrap(function)
    inner = getattr(inner, "__func__", inner)
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hints = typing.get_type_hints(
            holder, globalns=inner.__globals__, localns=_locals(inner, scope), include_extras=True
        )
    except Exception as error:  # a hint is any expression
        raise ToolDefinitionError(
            f"{label}: the type {parameter.annotation!r} of {parameter.name!r} cannot be resolved "
            f"where it is declared: {error}."
        ) from error
    return hints[parameter.name]


def _locals(function: Any, scope: types.FrameType | None) -> dict[str, Any]:
    """What a hint written as text may name besides globals: the names the function closes over, and, while its
    declaring function still runs, the locals there (`from __future__ import annotations` keeps hints out of the
    closure)."""
    found: dict[str, Any] = {}
    outer = function.__qualname__.rpartition(".<locals>.")[0]
    if scope is not None and outer and scope.f_code.co_qualname == outer and scope.f_globals is function.__globals__:
        found.update(scope.f_locals)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return found


def _choices(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_context(hint: Any) -> bool:
    return [each for each in _choices(hint) if each is not types.NoneType] == [ToolContext]


def _takes_none(hint: Any) -> bool:
    return any(each in (Any, None, types.NoneType) for each in _choices(hint))


def _description(hint: Any, documented: str | None) -> str | None:
    """What a hint says of its parameter (`Annotated[str, "…"]` or a Meta), else what the docstring says."""
    for extra in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(extra, str):
            return extra
        if isinstance(extra, Meta) and extra.description:
            return extra.description
    return documented


def _struct(name: str, fields: list[tuple[str, Any]], defaults: dict[str, Any]) -> tuple[type[Struct], dict[str, Any]]:
    for field, hint in fields:
        if not _NAME.fullmatch(field):
            raise ToolDefinitionError(
                f"Tool {name!r}: parameter {field!r} needs a name of ASCII letters, digits and _, at most 64."
            )
        try:
            msgspec.json.schema_components([hint])
        except Exception as error:  # TypeError mostly; NameError from hints inside a class
            lines = str(error).splitlines()
            raise ToolDefinitionError(
                f"Tool {name!r}: the type of {field!r} has no form in JSON: {lines[-1] if lines else error!r}. "
                "Use str, int, float, bool, list, dict, tuple, Literal, Enum, a dataclass, a TypedDict or a Struct."
            ) from error
    struct = msgspec.defstruct(
        "_Arguments",
        [(field, hint, UNSET) if field in defaults else (field, hint) for field, hint in fields],
        kw_only=True,
        forbid_unknown_fields=True,
    )
    # Providers refuse a $ref at the root, where msgspec puts one: the root is inlined, what it refers to is in $defs.
    (root,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    schema = components.pop(root["$ref"].removeprefix("#/$defs/"))
    del schema["title"]
    _say_items([schema, components])
    for field, default in defaults.items():
        try:
            plain = msgspec.to_builtins(default)
        except Exception:  # a default that is no JSON is the function's own affair
            continue
        if plain is not None and flaw(plain) is None:
            schema["properties"][field]["default"] = plain
    if components:
        schema["$defs"] = components
    return struct, schema


def _say_items(schema: Any) -> None:
    """Give every array its `items`: where any item will do msgspec says nothing, which some providers refuse."""
    if isinstance(schema, dict):
        if schema.get("type") == "array" and "items" not in schema:
            schema["items"] = {}
        for below in schema.values():
            _say_items(below)
    elif isinstance(schema, list):
        for below in schema:
            _say_items(below)


def _read_docstring(function: Function) -> tuple[str, dict[str, str]]:
    """What a docstring says of the whole (without its sections), and of each parameter: Google, numpy, reST or
    epydoc."""
    text = inspect.cleandoc(function.__doc__ or "")
    if "\n" not in text:
        return text, {}
    import docstring_parser  # 20 ms, only for docstrings that have more than a line

    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return text, {}
    documented = {
        name.strip(): " ".join(each.description.split())
        for each in parsed.params
        if each.description
        for name in each.arg_name.split(",")
    }
    return (parsed.description or "").strip(), documented
