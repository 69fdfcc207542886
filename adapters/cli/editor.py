"""A person's editor: the arguments of a call, as they changed them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ...events.errors import BadInput
from .answers import read_object

UNDECIDED = "nothing was decided."


def has_editor() -> bool:
    """Whether a person named one, in $VISUAL or $EDITOR."""
    return _named() is not None


def edited(arguments: Any) -> dict[str, Any]:
    """The arguments as a person left them in their editor. Raises BadInput where there is none, or no JSON."""
    editor = _named()
    if editor is None:
        raise BadInput("$EDITOR is not set: give the arguments with --arguments.")
    with tempfile.TemporaryDirectory(prefix="reenact-") as folder:  # nobody else may look into it
        path = Path(folder) / "arguments.json"
        path.write_text(json.dumps(arguments, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        try:
            ended = subprocess.run([*shlex.split(editor), str(path)], check=False)
        except (OSError, ValueError) as error:
            raise BadInput(f"{editor} cannot be run: {error}.") from None
        if ended.returncode != 0:
            raise BadInput(f"{editor} ended with {ended.returncode}; {UNDECIDED}")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"what {editor} left cannot be read: {error}; {UNDECIDED}") from None
        return read_object(text, "the arguments")


def _named() -> str | None:
    return (os.environ.get("VISUAL") or os.environ.get("EDITOR") or "").strip() or None
