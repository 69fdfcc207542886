"""Tools from files, each knowing where it came from, and the file that a session's tools once came from.

A file of tools is a program: loading it runs it. The log names the file, so that a session can be taken up with it.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from ..adapters.tools.registry import Tools, digest_of, load_file
from ..catalog.lookup import Reads
from ..events import codec
from ..events.agent import AgentConfigured, ToolRequested, ToolSettled
from ..events.container import ToolRegistered
from ..events.tool import ToolSpec
from ..identity.pane import DEFAULT, container_stream

NONE = digest_of(())
"""The digest of a set of tools with nothing in it."""


def tools_from(path: str | Path) -> Tools:
    """The tools of a file, with its path as their source. Raises what `load_file` raises."""
    tools = load_file(path)
    for tool in tools.values():
        if tool.spec.source == "code":
            tool.spec = replace(tool.spec, source=str(Path(path).absolute()))
    return tools


class Needed:
    """The tools a session works with. digest: of the set its agent was last given. open: names of calls not over."""

    def __init__(self, log: Reads, session_id: str) -> None:
        self.digest = NONE
        self.container_id: str | None = None
        self.scope = DEFAULT
        open_calls: dict[str, str] = {}
        for stored in log.read(f"session-{session_id}"):
            for recorded in codec.unpack(stored):
                self.container_id = recorded.context.container_id or self.container_id
                self.scope = recorded.context.scope
                match recorded.data:
                    case AgentConfigured(definition=definition):
                        self.digest = definition.tools or NONE
                    case ToolRequested(problem=None) as call:
                        open_calls[call.tool] = call.name
                    case ToolSettled(tool=tool):
                        open_calls.pop(tool, None)
        self.open = sorted(set(open_calls.values()))

    def missing(self, tools: Tools) -> bool:
        """Whether these tools will not do: a call that is not over has no tool, or there are none where there were."""
        return any(name not in tools for name in self.open) or (self.digest != NONE and not len(tools))


def sources(log: Reads, needed: Needed) -> list[Path]:
    """Files that the tools of a session came from, as far as the log tells; none where they came from a program."""
    specs = _registered(log, needed)
    files: dict[str, dict[str, ToolSpec]] = {}
    for spec in specs:
        files.setdefault(spec.source, {})[spec.name] = spec  # the newest of each name
    alike = [source for source, of_file in files.items() if digest_of(of_file.values()) == needed.digest]
    named = [spec.source for spec in specs if spec.name in needed.open]
    found = [Path(source) for source in dict.fromkeys([*reversed(alike), *reversed(named)])]
    return [path for path in found if path.is_absolute() and path.is_file()][:1]


def _registered(log: Reads, needed: Needed) -> list[ToolSpec]:
    return [
        recorded.data.tool
        for stored in log.read(container_stream(needed.scope, needed.container_id or ""))
        for recorded in codec.unpack(stored)
        if isinstance(recorded.data, ToolRegistered)
    ]
