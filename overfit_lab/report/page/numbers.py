"""Numbers as the page holds and shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable

DIGITS = 4


def rounded(value: float | None) -> float | None:
    """Round to four significant digits; None where the value is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def all_rounded(values: Iterable[float]) -> list[float | None]:
    """Round each of several values."""
    return [rounded(value) for value in values]


def count(number: int, one: str, many: str | None = None) -> str:
    """Say how many there are: `1 run`, `2 runs`."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {many or f'{one}s'}"


def listed(parts: list[str], last: str = "and") -> str:
    """Join words: `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def capitalised(sentence: str) -> str:
    """Begin a sentence with a capital, unless it begins with the name of a file or a key."""
    first, _, _ = sentence.partition(" ")
    return sentence[:1].upper() + sentence[1:] if first.isalpha() else sentence
