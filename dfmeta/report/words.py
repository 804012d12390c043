"""Numbers and names as people read them: one spelling for every table."""

from __future__ import annotations

# What a record is of, by its layout, where it is not of the whole site laid out flat.
LAYOUTS = {"channel": "channels", "patch": "patches"}


def percent(value: float) -> str:
    """``97.5`` as ``97.50 %``."""
    return f"{value:.2f} %"


def integer(value: int) -> str:
    """``1234567`` as ``1,234,567``."""
    return f"{value:,}"


def size(count: int) -> str:
    """Bytes in powers of ten: ``999 B``, ``61.7 kB`` (1 kB = 1000 B), ``3.2 MB``, ``1.5 GB``."""
    if count < 1000:
        return f"{count} B"
    value = count / 1000
    for unit in ("kB", "MB"):
        # What rounds to 1000.0 belongs to the next unit.
        if round(value, 1) < 1000:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


def seconds(value: float) -> str:
    """``7.25`` as ``7.2 s``, ``185`` as ``3 min 05 s``."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def clean(text: str) -> str:
    """Text of unknown origin, safe to print: what is not printable becomes an escape (backslash, x, 1b).

    A manifest is hostile input: a title may hold codes that clear the screen or turn the line around.
    """
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
