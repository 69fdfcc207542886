"""Writes the golden bytes of event types and shapes that have none yet: `python -m tests.events.golden`.

It never changes a line, and takes none away. A type that was given a field with a default has a new shape of the same
schema version: the bytes of the old one stay, under the name with a number behind it, and must decode for ever.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from reenact.events import codec
from tests.events.samples import SAMPLES


def only_added(old: Any, new: Any) -> bool:
    """Whether everything of an old shape is in the new one as it was."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and only_added(value, new[name]) for name, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(only_added, old, new))
    return bool(old == new)


def renew(golden: dict[str, str]) -> None:
    """Add what is missing. Raises where a shape lost or changed something: that needs a schema version."""
    for sample in SAMPLES:
        line, bytes_now = f"{sample.type} {sample.schema}", codec.encode(sample)
        bytes_then = bytes.fromhex(golden.setdefault(line, bytes_now.hex()))
        if bytes_then == bytes_now:
            continue
        if not only_added(msgspec.msgpack.decode(bytes_then), msgspec.msgpack.decode(bytes_now)):
            raise SystemExit(f"{sample.type} did not only gain fields: give it a schema version and an upcaster.")
        number = 1
        while f"{line} {number}" in golden:
            number += 1
        golden[f"{line} {number}"] = bytes_then.hex()
        golden[line] = bytes_now.hex()


if __name__ == "__main__":
    path = Path(__file__).with_name("golden.json")
    golden = json.loads(path.read_text()) if path.exists() else {}
    renew(golden)
    path.write_text(json.dumps(golden, indent=1) + "\n")
