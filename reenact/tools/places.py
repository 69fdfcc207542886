"""Where tools run: the working folder of an image, and what the variables say that a tool depends on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..actors.image import State as ImageState
from ..adapters.tools.registry import Tools
from ..events.message import digest, show_digest
from ..events.secret import mask
from ..events.tool import Place
from ..secrets.variables import secrets_in

if TYPE_CHECKING:
    from ..secrets.vault import Vault

VARIABLE_CHARS_MAX = 1000
"""Characters of a variable that are stored with a question; of a longer one it is a digest."""

WORKSPACES_MAX = 10_000
"""Paths of working folders that are remembered."""


class Places:
    """The places of a runtime's tools. There are no walls around them."""

    def __init__(self, *, tools: Tools, base_path: Path, vault: Vault) -> None:
        self._tools = tools
        self._base_path = base_path
        self._vault = vault
        self._workspaces: dict[tuple[str | None, str | None], Path] = {}  # a path costs more than a lookup

    def of(self, image: ImageState, name: str, scope: str) -> Place:
        """Where and with what a tool of an image runs, as an approval covers it: the folder, and what the variables say
        that it depends on, without the secrets of its scope. There are no walls around it.
        """
        workspace, tool = self.workspace(image), self._tools.get(name)
        names = () if tool is None else tool.environ
        env = {each: self._shown(each, os.environ[each], scope) for each in names if each in os.environ}
        # Where its links lead, not where they stand: they may be turned once somebody has looked.
        return Place(cwd="" if workspace is None else os.path.realpath(workspace), env=env)

    def _shown(self, name: str, value: str, scope: str) -> str:
        """What a variable says, as it may be stored: a person reads it, and another value is told from it, unless it is
        a secret, of which not even a digest is kept."""
        shown = self._vault.text(value, scope=scope)
        for part in sorted((part for _, part in secrets_in({name: value})), key=len, reverse=True):
            shown = shown.replace(part, mask(name))  # it may have changed since the vault looked, at the start
        if shown != value or len(value) <= VARIABLE_CHARS_MAX:
            return shown[:VARIABLE_CHARS_MAX]
        return show_digest(digest(value.encode("utf-8", "surrogateescape")))

    def workspace(self, image: ImageState) -> Path | None:
        """The folder an image's tools work in: its own, or one named after it below the base path."""
        key = image.image_id, image.config.workspace
        known = self._workspaces.get(key)
        if known is None:
            image_id, own = key
            if len(self._workspaces) >= WORKSPACES_MAX:
                self._workspaces.clear()
            path = Path(own) if own is not None else self._base_path / "workspaces" / (image_id or "none")
            known = self._workspaces[key] = path
        return known
