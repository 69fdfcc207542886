"""What may be asked of a person, and what is an answer to it: by its kind, the fields and their bounds. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec

from ..events.action import ActionType
from ..events.errors import BadInput, BadResolution

OPTIONS_MAX = 100
TEXT_MAX = 100_000
COMMENT_MAX = 10_000
FILES_MAX = 100
"""Bounds on questions and answers: options of a choice, characters of a text and of a comment, files of an upload."""

FILES_BYTES_MAX = 8 * 1024 * 1024
"""Most bytes that the files of one upload have together, where the answer holds them."""

CUSTOM_BYTES_MAX = 1024 * 1024
"""Most bytes of an answer whose form only its asker knows."""

SECRET_NAME_CHARS_MAX = 64
"""Longest name of a secret that is asked for."""


def check_question(kind: ActionType, payload: Mapping[str, Any]) -> None:
    """Raises BadInput for a question that cannot be answered."""
    if kind not in get_args(ActionType):
        raise BadInput(f"There is no action {kind!r}. There are: {', '.join(get_args(ActionType))}.")
    if kind == "choose":
        options = payload.get("options")
        if not isinstance(options, list) or not 1 <= len(options) <= OPTIONS_MAX:
            raise BadInput(f"A choice has payload['options'], a list of 1 to {OPTIONS_MAX} texts.")
        if not all(isinstance(option, str) for option in options) or len(set(options)) < len(options):
            raise BadInput("The options of a choice are texts, no two of them the same.")
    if kind == "input":
        low, high = payload.get("min_length", 0), payload.get("max_length", TEXT_MAX)
        if not (_is_count(low) and _is_count(high) and low <= high <= TEXT_MAX):
            raise BadInput(f"min_length and max_length of an input are whole numbers from 0 to {TEXT_MAX:,}, in order.")
    if kind == "upload":
        most = payload.get("max_files", FILES_MAX)
        if not (_is_count(most) and 1 <= most <= FILES_MAX):
            raise BadInput(f"max_files of an upload is a whole number from 1 to {FILES_MAX}.")
    if kind == "reauth":
        name = payload.get("secret", "-")
        if not isinstance(name, str) or not 0 < len(name.strip()) <= len(name) <= SECRET_NAME_CHARS_MAX or "]" in name:
            raise BadInput(
                f"secret of a reauth is the name of one: 1 to {SECRET_NAME_CHARS_MAX} characters without `]`."
            )
        if not name.isprintable():
            raise BadInput("secret of a reauth is the name of one, in printable characters.")
    if kind == "apply_changes":
        changes = payload.get("changes", [])
        if not isinstance(changes, list):
            raise BadInput("The changes to apply are a list.")


def check_resolution(
    kind: ActionType, payload: Mapping[str, Any], given: Mapping[str, Any], *, of_call: bool = False
) -> None:
    """Raises BadResolution for what is no answer to the question. of_call: it is the approval of a tool's call."""
    if kind == "custom":
        try:
            size = len(msgspec.json.encode(given))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:  # a half of a character is a ValueError
            raise BadResolution(f"The answer has no JSON form: {error}.") from None
        if size > CUSTOM_BYTES_MAX:
            raise BadResolution(f"An answer of this kind has at most {CUSTOM_BYTES_MAX:,} bytes.")
        return
    known = {"comment", *_FIELDS[kind], *(_OF_CALL if of_call else ())}
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise BadResolution(f"{unknown[0]!r} is no part of an answer to {kind}: it has {', '.join(sorted(known))}.")
    comment = given.get("comment", "")
    if not isinstance(comment, str) or len(comment) > COMMENT_MAX:
        raise BadResolution(f"A comment is a text of at most {COMMENT_MAX:,} characters.")
    _CHECKS[kind](payload, given)


def _check_yes(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if not isinstance(given.get("approved"), bool):
        raise BadResolution("The answer is approved: true or false.")
    arguments, always = given.get("arguments"), given.get("always")
    if arguments is not None and not isinstance(arguments, dict):
        raise BadResolution("The arguments to run instead are an object.")
    if always not in (None, "exact", "class"):
        raise BadResolution(f"always is exact or class, not {always!r}.")
    if not given["approved"] and (arguments is not None or always is not None):
        raise BadResolution("What is denied has no other arguments, and no leave for calls to come.")


def _check_choice(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    options: list[str] = payload["options"]
    several = payload.get("multiple") is True
    name = "choices" if several else "choice"
    chosen = given.get(name)
    if several and isinstance(chosen, list):
        picked: list[Any] = chosen
    elif not several and isinstance(chosen, str):
        picked = [chosen]
    else:
        raise BadResolution(f"The answer is {name}: {'a list of options' if several else 'one of the options'}.")
    if len(given.keys() & {"choice", "choices"}) > 1:
        raise BadResolution(f"The answer is {name}, and nothing else.")
    if not picked:
        raise BadResolution("The answer is choices: at least one of the options.")
    for option in picked:
        if option not in options:
            raise BadResolution(f"{option!r} is not among the options: {', '.join(options)}.")
    if len(set(picked)) < len(picked):
        raise BadResolution("An option is chosen once.")


def _check_text(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    text = given.get("text")
    low, high = payload.get("min_length", 0), payload.get("max_length", TEXT_MAX)
    if not isinstance(text, str) or not low <= len(text) <= high:
        raise BadResolution(f"The answer is text: {low:,} to {high:,} characters.")


def _check_files(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    files, most = given.get("files"), payload.get("max_files", FILES_MAX)
    if not isinstance(files, list) or not 1 <= len(files) <= most:
        raise BadResolution(f"The answer is files: a list of 1 to {most}.")
    for each in files:
        fits = isinstance(each, dict) and isinstance(each.get("name"), str) and each["name"]
        if not fits or not any(isinstance(each.get(where), str) for where in ("data", "url", "path", "file_id")):
            raise BadResolution("A file has a name, and one of data, url, path and file_id.")
    held = sum(_bytes_of(each["name"], each["data"]) for each in files if "data" in each)
    if held > FILES_BYTES_MAX:
        raise BadResolution(f"The files have {held:,} bytes together; at most {FILES_BYTES_MAX:,} are kept.")


def _bytes_of(name: str, data: object) -> int:
    """How many bytes stand in a file's data."""
    try:
        if not isinstance(data, str):
            raise ValueError
        return len(base64.b64decode(data, validate=True))
    except ValueError:
        said = "A known secret that stood in it was taken out." if "[secret:" in str(data) else "It is no base64."
        raise BadResolution(f"The data of the file {name[:60]!a} cannot be read. {said}") from None


def _check_login(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if not isinstance(given.get("authenticated"), bool):
        raise BadResolution("The answer is authenticated: true or false. A password is never an answer.")
    if "secret" in given and (given["secret"] != payload.get("secret") or not given["authenticated"]):
        raise BadResolution(
            "secret names what was handed over, as the question names it; the value is never an answer."
        )


def _check_changes(payload: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if not isinstance(given.get("approved"), bool):
        raise BadResolution("The answer is approved: true or false.")
    changes, many = given.get("changes"), len(payload.get("changes", []))
    if changes is None:
        return
    if not given["approved"] or not isinstance(changes, list):
        raise BadResolution("changes is a list of the numbers of those that are approved.")
    if not all(_is_count(each) and each < many for each in changes) or len(set(changes)) < len(changes):
        raise BadResolution(f"changes are different whole numbers from 0 to {many - 1}.")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_Check = Callable[[Mapping[str, Any], Mapping[str, Any]], None]

_CHECKS: dict[ActionType, _Check] = {
    "confirm": _check_yes,
    "approval": _check_yes,
    "choose": _check_choice,
    "input": _check_text,
    "upload": _check_files,
    "reauth": _check_login,
    "apply_changes": _check_changes,
}
_FIELDS: dict[ActionType, tuple[str, ...]] = {
    "confirm": ("approved",),
    "approval": ("approved",),
    "choose": ("choice", "choices"),
    "input": ("text",),
    "upload": ("files",),
    "reauth": ("authenticated", "secret"),
    "apply_changes": ("approved", "changes"),
}
_OF_CALL = ("arguments", "always")
