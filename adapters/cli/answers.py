"""What a person may answer to each kind of question, as options of a command line, and what comes of them."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ...events.errors import BadInput
from ..plain_file import each_once
from .front import Row
from .options import STDIN

FILE_BYTES_MAX = 8 * 1024 * 1024
"""The largest file that is read for an upload; all files of one answer together may not have more."""

_ANSWER = Group("Answer", sort_key=1)


@Parameter(name="*", group=_ANSWER)
@dataclass(frozen=True)
class Given:
    """What was said."""

    yes: Annotated[
        bool | None,
        Parameter(
            name="--yes", negative="--no", show_default=False, help="Of confirm, approval, apply_changes and reauth."
        ),
    ] = None
    choose: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", show_default=False, help="Of choose: an option. Again for more, where more are allowed."
        ),
    ] = ()
    text: Annotated[str | None, Parameter(help="Of input. - reads it from stdin.")] = None
    file: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", show_default=False, help="Of upload: a file; what is in it goes into the log. Again for more."
        ),
    ] = ()
    change: Annotated[
        tuple[int, ...],
        Parameter(
            negative="", show_default=False, help="Of apply_changes: the number of one to apply, and not the others."
        ),
    ] = ()
    secret: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Of reauth: asks for the secret at the terminal, unseen, and hands it to the process that works on the"
            " log. That it was given is recorded, and it itself nowhere.",
        ),
    ] = False
    resolution: Annotated[
        str | None, Parameter(help="Of custom, and of every kind: the whole answer as JSON; - reads it from stdin.")
    ] = None

    @property
    def named(self) -> list[str]:
        """The options that were given."""
        return [f"--{field.name}" for field in fields(self) if getattr(self, field.name) not in (None, (), False)] + (
            ["--no"] if self.yes is False else []
        )


def possible(row: Row) -> str:
    """How a question can be answered, in words."""
    payload: Mapping[str, Any] = row["payload"]
    kind = row["type"]
    if kind == "choose":
        shown = ", ".join(json.dumps(option, ensure_ascii=False) for option in payload.get("options", ())[:20])
        several = " (again for more)" if payload.get("multiple") is True else ""
        return f"--choose KEY{several}, of {shown}"
    if kind == "input":
        low, high = payload.get("min_length"), payload.get("max_length")
        bounds = (
            f", {low or 0} to {high} characters" if high is not None else f", {low} characters or more" if low else ""
        )
        return f"--text TEXT{bounds}"
    if kind == "upload":
        most = payload.get("max_files")
        return f"--file PATH, up to {most} times" if most is not None else "--file PATH, again for more"
    if kind == "reauth":
        return "--secret, or --no" if payload.get("secret") else "--yes or --no"
    if kind == "apply_changes":
        many = len(payload.get("changes", ()))
        return "--yes or --no" + (f", or --change N for some of 0 to {many - 1}" if many else "")
    return "--resolution '{…}'" if kind == "custom" else "--yes or --no"


def is_raise(row: Row) -> bool:
    """Whether it asks to raise a limit."""
    return row["reason"] == "budget" and row["call"] is None and "raise_by" in row["payload"]


def raising(row: Row) -> str:
    """By how much such a question raises what: `298: max_tokens_total of the scope`."""
    payload = row["payload"]
    return f"{_amount(row, 'raise_by')}: {payload['limit']} of the {payload['of']}"


def raised(row: Row) -> str:
    """What a yes to such a question did."""
    payload = row["payload"]
    still = "" if payload["of"] == "run" else f", if it is still {_amount(row, 'most')}"
    return f"limit raised by {_amount(row, 'raise_by')}{still}: {payload['limit']} of the {payload['of']}"


def _amount(row: Row, field: str) -> str:
    payload = row["payload"]
    return f"${payload[field]}" if "cost" in payload["limit"] else f"{payload[field]:,}"


_OF: dict[str, tuple[str, ...]] = {
    "confirm": ("--yes", "--no"),
    "approval": ("--yes", "--no"),
    "choose": ("--choose",),
    "input": ("--text",),
    "upload": ("--file",),
    "reauth": ("--yes", "--no", "--secret"),
    "apply_changes": ("--yes", "--no", "--change"),
    "custom": (),
}


def resolution_of(row: Row, given: Given, read: Callable[[], str]) -> dict[str, Any]:
    """The answer to a question that these options make. read: gives what stands in stdin, for a `-`.

    Raises BadInput for options that are no answer to it, naming those that are.
    """
    kind, named = row["type"], given.named
    if given.resolution is not None:
        if len(named) > 1:
            raise BadInput(f"--resolution is the whole answer, so {named[0]} has no place beside it.")
        return read_object(read() if given.resolution == STDIN else given.resolution, "--resolution")
    strange = [name for name in named if name not in _OF.get(kind, ())]
    if strange or not named:
        said = f"not with {strange[0]}" if strange else "and nothing was said"
        raise BadInput(f"a question of type {kind} is answered with {possible(row)}; {said}.")
    if kind == "choose":
        if row["payload"].get("multiple") is True:
            return {"choices": list(given.choose)}
        if len(given.choose) > 1:
            raise BadInput("one of the options is chosen, not several.")
        return {"choice": given.choose[0]}
    if kind == "input":
        return {"text": read() if given.text == STDIN else given.text}
    if kind == "upload":
        return {"files": files_of(given.file)}
    if kind == "reauth":
        if given.secret and given.yes is False:
            raise BadInput("--secret hands it over, --no says that there is none.")
        if row["payload"].get("secret") and not given.secret and given.yes:
            raise BadInput(f"a question that asks for a secret is answered with {possible(row)}; not with --yes.")
        return {"authenticated": given.secret or given.yes is True}
    if kind == "apply_changes" and given.change:
        if given.yes is False:
            raise BadInput("--change says which to apply, --no that none is.")
        return {"approved": True, "changes": list(given.change)}
    return {"approved": given.yes is True}


def files_of(paths: tuple[str, ...]) -> list[dict[str, Any]]:
    """Files as they are answered with: name, kind, size, digest, and what is in them. Raises BadInput."""
    files, left = [], FILE_BYTES_MAX
    for each in paths:
        try:
            path = Path(each).expanduser()
            if not path.is_file():
                raise BadInput(f"{each}: there is no such file.")
            with path.open("rb") as file:
                data = file.read(left + 1)
        except RuntimeError:
            raise BadInput(f"{each}: nobody of this name has a home directory here.") from None
        except (OSError, ValueError) as error:
            raise BadInput(f"{each}: {getattr(error, 'strerror', None) or error}.") from None
        left -= len(data)
        if left < 0:
            raise BadInput(f"{each}: the files of one answer have at most {FILE_BYTES_MAX:,} bytes together.")
        files.append(
            {
                "name": path.name,
                "mediaType": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
                "bytes": len(data),
                "digest": "sha256:" + hashlib.sha256(data).hexdigest(),
                "data": base64.b64encode(data).decode(),
            }
        )
    return files


def read_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object. what: named in what is raised, BadInput, also where a key stands twice in it: of two values that
    were typed none is the one that was meant."""

    try:
        given = json.loads(text, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what} is no JSON object: {error}.") from None
    if not isinstance(given, dict):
        raise BadInput(f"{what} is an object: {{…}}.")
    return given
