"""What can be wrong with tools themselves. A bad call of a good tool is no error here: see
`arguments.BadArguments`."""

from __future__ import annotations

from ...events.errors import BadInput, NotFound, Refused


class ToolDefinitionError(BadInput, TypeError):
    """This function cannot be a tool as it is declared."""

    code = "tool_definition"


class ToolFileError(BadInput):
    """No tools can be loaded from this file."""

    code = "tool_file"


class DuplicateTool(Refused):
    """Another tool has this name already."""

    code = "duplicate_tool"


class UnknownTool(NotFound, KeyError):
    """There is no tool of this name."""

    code = "unknown_tool"

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0])
