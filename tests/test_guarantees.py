"""Every promise in docs/guarantees.md names a test that is there."""

import re
from pathlib import Path

NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_promise_names_a_test_that_is_there(root: Path) -> None:
    text = (root / "docs" / "guarantees.md").read_text()
    named = [each for each in NAMED.findall(text) if each[0] != "tests/test_guarantees.py"]
    assert len(named) > 20
    for file, test in named:
        assert (root / file).is_file(), file
        if test:
            assert f"def {test}(" in (root / file).read_text(), f"{file} has no {test}"


def test_every_numbered_promise_has_a_test_or_says_what_is_not_promised(root: Path) -> None:
    text = (root / "docs" / "guarantees.md").read_text()
    promises = re.split(r"^\d+\. ", text, flags=re.M)[1:]
    assert [int(number) for number in re.findall(r"^(\d+)\. ", text, re.M)] == list(range(1, len(promises) + 1))
    assert len(promises) > 20
    for promise in promises:
        assert NAMED.search(promise.split("\n## ")[0]) or "not exactly once" in promise, promise[:80]
