"""Rows of a sheet as Arrow, the form in which DuckDB takes them over. Home of pyarrow, loaded on first use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .sheet import OF_BATCH, OF_FACT, OF_KIND, Sheet
from .tables import FACTS, TABLES


def arrow(sheet: Sheet) -> dict[str, Any]:
    """Table -> its rows. Made by whoever reads the log, so that the thread that writes needs no Python meanwhile."""
    tables = {"facts": _facts(sheet)}
    for table, rows in (("ledger_calls", sheet.calls), ("tool_calls", sheet.tools)):
        if rows:
            tables[table] = _rows(TABLES[table], rows)
    return tables


def _facts(sheet: Sheet) -> Any:
    """The rows of `facts`; what they share is written down once and spread here, which costs a tenth."""
    import pyarrow as pa

    batches, kinds, *own = zip(*sheet.facts, strict=True)
    by_batch, by_kind = pa.array(batches, pa.int32()), pa.array(kinds, pa.int32())
    found = {
        **{name: _column(FACTS[name], each).take(by_batch) for name, each in _named(OF_BATCH, sheet.batches)},
        **{name: _column(FACTS[name], each).take(by_kind) for name, each in _named(OF_KIND, sheet.kinds)},
        **{name: _column(FACTS[name], each) for name, each in zip(OF_FACT, own, strict=True)},
    }
    return pa.Table.from_arrays([found[name] for name in FACTS], names=list(FACTS))


def _named(names: Sequence[str], rows: Iterable[tuple[object, ...]]) -> Iterable[tuple[str, tuple[object, ...]]]:
    return zip(names, zip(*rows, strict=True), strict=True)


def _rows(columns: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> Any:
    import pyarrow as pa

    arrays = [_column(columns[name], values) for name, values in _named(list(columns), rows)]
    return pa.Table.from_arrays(arrays, names=list(columns))


def _column(kind: str, values: Sequence[object]) -> Any:
    import pyarrow as pa

    kinds = {
        "BIGINT": pa.int64(),
        "BOOLEAN": pa.bool_(),
        "DECIMAL(38,18)": pa.decimal128(38, 18),
        "TIMESTAMP": pa.timestamp("us"),
        "VARCHAR": pa.string(),
        "VARCHAR[]": pa.list_(pa.string()),
    }
    return pa.array(values, kinds[kind])
