"""Days and months of UTC, by arithmetic alone, for any time there is. Times are microseconds since 1970. Pure."""

from __future__ import annotations

from functools import lru_cache

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000


def month_of(at: int) -> int:
    """Months since the year 0."""
    return _month_of_day(at // DAY_US)


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> int:
    era, of_era = divmod(day + 719_468, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # March is 0
    return (year + era * 400) * 12 + month + 2
