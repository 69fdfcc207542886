"""The command that looks at policies: what the rules in files say, before anything is held to them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .front import Front
from .output import Output
from .table import Column, table


class Rules:
    """The commands, over what they are handed."""

    def __init__(self, front: Front, output: Output) -> None:
        self._front = front
        self._output = output

    def check(
        self,
        file: Annotated[str, Parameter(help="A file of TOML.")],
        /,
        *files: Annotated[str, Parameter(help="More of them, each laid over those before it.")],
        tool: Annotated[
            tuple[str, ...], Parameter(negative="", show_default=False, help="May it be run? Again for more.")
        ] = (),
        model: Annotated[
            tuple[str, ...],
            Parameter(
                name=["-m", "--model"],
                negative="",
                show_default=False,
                help="provider:model: may it be called? Again for more.",
            ),
        ] = (),
        tools: Annotated[
            tuple[str, ...],
            Parameter(
                name=["-t", "--tools"],
                negative="",
                show_default=False,
                help="A file of Python with the @tool functions that there are. It is run. Names that none of them"
                " has are told of, and refused where the policy is strict. Again for more files.",
            ),
        ] = (),
        scope: Annotated[str, Parameter(help="The tenant who asks.")] = "default",
        principal: Annotated[str, Parameter(help="Who of them asks.")] = "user",
        json: Annotated[
            bool, Parameter(negative="", show_default=False, help="One JSON object a line on stdout.")
        ] = False,
    ) -> int:
        """Read policies and say what they decide: about tools, about models, and the limits they set.

        Exit 0 where all that was asked about may be done, also where a person would have to approve it; 1 where
        something is denied; 2 for a file that is no policy. Names that no tool has are told of on stderr.
        """
        self._output.json = json
        asked = {"tools": tool, "models": model}
        said = self._front.policy((file, *files), **asked, scope=scope, principal=principal, there=tools)
        rows = [self._output.hidden(row) for row in said]
        if json:
            self._output.rows(rows)
        else:
            columns = [
                Column("ABOUT", "kind"),
                Column("NAME", "name", wide=True),
                Column("DECISION", "decision"),
                Column("RULES", lambda row: ", ".join(row["appliedRules"]), wide=True),
                Column("REASON", "reason", wide=True),
            ]
            table(self._output, columns, rows, none="the policy can be read; it says nothing of limits.")
        return 1 if any(row["decision"] == "deny" for row in rows) else 0
