"""Tools by name: a set of them, what it looks like as a whole, and tools loaded from a file of Python.

A file of tools is a program: loading it runs it, with all that this process may do.
"""

from __future__ import annotations

import difflib
import hashlib
import linecache
import os
import re
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ...events.message import digest, show_digest
from ...events.tool import CallCheck, ToolSpec
from .arguments import BadArguments, unreadable
from .errors import DuplicateTool, ToolDefinitionError, ToolFileError, UnknownTool
from .tool import Tool

AnyTool = Tool[..., Any]

SUBSETS_MAX = 1000
"""How many of its subsets a set of tools remembers."""


class Tools(Mapping[str, AnyTool]):
    """A set of tools, each under its own name. Reads as a mapping, in order of the names, so that it always looks the
    same."""

    def __init__(self, tools: Iterable[AnyTool] = ()) -> None:
        self._tools: dict[str, AnyTool] = {}
        self._subsets: dict[tuple[str, ...], Tools] = {}
        self._seen: tuple[tuple[ToolSpec, ...], str] | None = None  # specs and digest, asked for at every model call
        for each in tools:
            self.add(each)

    def add(self, tool: AnyTool) -> None:
        """Take a tool in. One of the same name and version is here already: nothing happens.

        Raises `DuplicateTool` where the name belongs to a tool of another version, `ToolDefinitionError` for what is
        no tool and for a probeable one without its probe.
        """
        if not isinstance(tool, Tool):
            raise ToolDefinitionError(f"{tool!r} is no tool. Put @tool on it.")
        tool.check()
        known = self._tools.get(tool.name)
        if known is None:
            self._tools[tool.name] = tool
            self._seen = None
        elif known.version != tool.version:
            raise DuplicateTool(
                f"There are two different tools named {tool.name!r} ({known.version} and {tool.version}). "
                "Name one otherwise: @tool(name=…)."
            )

    def __getitem__(self, name: str) -> AnyTool:
        """Raises `UnknownTool`, a KeyError, with the names there are."""
        try:
            return self._tools[name]
        except KeyError:
            raise UnknownTool(self._unknown(name)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._tools))

    def __len__(self) -> int:
        return len(self._tools)

    def __repr__(self) -> str:
        return f"Tools({', '.join(self)})"

    def only(self, names: Iterable[str]) -> Tools:
        """Those of these names, the same set for the same names; do not add to it. Raises `UnknownTool`."""
        wanted = tuple(names)
        known = self._subsets.get(wanted)
        if known is None:
            if len(self._subsets) >= SUBSETS_MAX:
                self._subsets.clear()
            known = self._subsets[wanted] = Tools(self[name] for name in wanted)
        return known

    def specs(self) -> tuple[ToolSpec, ...]:
        """What models are told and the log records, in order of the names."""
        return self._look()[0]

    @property
    def digest(self) -> str:
        """Over the names and versions of all of them: equal exactly for sets that look the same to a model."""
        return self._look()[1]

    def _look(self) -> tuple[tuple[ToolSpec, ...], str]:
        if self._seen is None:
            specs = tuple(self._tools[name].spec for name in self)
            self._seen = specs, digest_of(specs)
        return self._seen

    def check(self, name: str, arguments: object, *, invalid: str | None = None) -> CallCheck:
        """Look at a call before anything is decided on it: the tool's facts, or the problem to tell the model.

        invalid: what the model wrote where its arguments should be, and why it could not be read (`ToolCall.invalid`).
        """
        tool = self._tools.get(name)
        if tool is None:
            return CallCheck(name=name, problem=f"{self._unknown(name)} Nothing was run.")
        spec, problem = tool.spec, None
        if invalid is not None:
            problem = unreadable(invalid).message
        else:
            checked = tool.validate(arguments)
            if isinstance(checked, BadArguments):
                problem = checked.message
        return CallCheck(
            name=name,
            effect=spec.effect,
            approval=spec.approval,
            timeout_s=spec.timeout_s,
            version=spec.version,
            problem=problem,
        )

    def _unknown(self, name: object) -> str:
        shown = ascii(name) if len(str(name)) <= 64 else ascii(str(name)[:64]) + "…"
        if not self._tools:
            return f"There is no tool named {shown}: there are none."
        near = difflib.get_close_matches(str(name)[:64], self, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        return f"There is no tool named {shown}. {hint}There are: {', '.join(self)}."


def digest_of(specs: Iterable[ToolSpec]) -> str:
    """Digest over the names and versions of a set of tools, in whatever order they come."""
    return show_digest(digest(msgspec.json.encode(sorted((spec.name, spec.version) for spec in specs))))


def load_file(path: str | os.PathLike[str]) -> Tools:
    """Run a file of Python as a module of its own and take every tool that it has at its top level.

    sys.path stays as it is, so the file imports what is installed and not its neighbours. Nothing is written beside
    it. Raises `ToolFileError`, in one line with the place in the file: no such file, a syntax error, whatever it
    raised, no tool in it. Raises `DuplicateTool` for two of one name.
    """
    file = Path(path)
    try:
        source = file.read_bytes()
    except (OSError, ValueError) as error:  # the latter where its name holds U+0000
        raise ToolFileError(f"{file}: {getattr(error, 'strerror', None) or error}.") from error
    module = types.ModuleType(_module_name(file))
    module.__file__ = str(file)
    # Dataclasses and msgspec look their module up by its name, also after it has run.
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    linecache.checkcache(str(file))
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
        found = {id(each): each for each in vars(module).values() if isinstance(each, Tool)}
        if not found:
            raise ToolFileError(f"{file}: no tools in it. Put @tool on a function at its top level.")
        return Tools(found.values())
    except BaseException as error:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        if isinstance(error, ToolFileError | DuplicateTool | KeyboardInterrupt):
            raise
        raise ToolFileError(_place(error, file)) from error


def _module_name(file: Path) -> str:
    """Its own for every path, the same at every load."""
    stem = re.sub(r"\W", "_", file.stem, flags=re.ASCII)
    return f"_reenact_tools_{stem}_{hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:8]}"


def _place(error: BaseException, file: Path) -> str:
    """`file:line: what`, with the deepest line that lies in the file."""
    said = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    what = said if isinstance(error, SyntaxError | ToolDefinitionError) else f"{type(error).__name__}: {said}"
    if isinstance(error, SyntaxError) and error.filename == str(file):
        line = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(file)), None)
    return f"{file}:{line}: {what}" if line else f"{file}: {what}"
