"""Files of plain data: what is read of them, and what is said of those that hold none."""

from __future__ import annotations

from pathlib import Path

import pytest

from reenact.adapters.plain_file import object_in
from reenact.events.errors import BadInput


@pytest.mark.parametrize(("name", "text"), [("a.toml", 'a = 1\nb = ["c"]'), ("a.json", '{"a": 1, "b": ["c"]}')])
def test_the_name_of_a_file_says_how_it_is_read(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert object_in(str(path), "an object") == {"a": 1, "b": ["c"]}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.json", None, "No such file"),
        ("a.json", b"{", "Expecting"),
        ("a.json", b"\xff", "decode"),
        ("a.json", b"[" * 100_000, "recursion"),
        ("a.json", b"[1]", "limits, please."),
        ("a.json", b'{"a": 1, "b": 2, "a": 1}', "'a' is named twice."),
        ("a.json", b'{"b": {"a": 1, "a": 2}}', "'a' is named twice."),
        ("a.toml", b"a = 1\na = 1", "overwrite"),
        ("a.toml", b"a = ", "Invalid value"),
        ("a.toml", b"\xff", "decode"),
    ],
)
def test_a_file_without_an_object_is_named(tmp_path: Path, name: str, text: bytes | None, said: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(BadInput) as refused:
        object_in(str(path), "limits, please.")
    assert str(refused.value).startswith(f"{path}: ") and said in str(refused.value)


@pytest.mark.parametrize("name", ["long.json", "long.toml"])
def test_a_file_that_never_ends_is_not_read_to_its_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.symlink_to("/dev/zero")
    with pytest.raises(BadInput, match="is longer than"):
        object_in(str(path), "an object")
