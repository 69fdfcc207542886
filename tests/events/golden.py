"""Writes the golden bytes of event types that have none yet: `python -m tests.events.golden`. Never changes a line."""

import json
from pathlib import Path

from reenact.events import codec
from tests.events.samples import SAMPLES

if __name__ == "__main__":
    path = Path(__file__).with_name("golden.json")
    golden = json.loads(path.read_text()) if path.exists() else {}
    for sample in SAMPLES:
        golden.setdefault(f"{sample.type} {sample.schema}", codec.encode(sample).hex())
    path.write_text(json.dumps(golden, indent=1) + "\n")
