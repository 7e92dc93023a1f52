"""Names that look alike: the same letters, composed (NFC) or decomposed (NFD) in Unicode.

macOS decomposes the accents of file names and most other systems do not, so that a folder that was
copied between them can have both.
"""

import unicodedata
from collections.abc import Iterable


def composed(name: str) -> str:
    """The composed form, in which names that look alike are equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Groups of two and more different names that look alike."""
    groups: dict[str, list[str]] = {}
    for name in names:
        if not name.isascii():
            groups.setdefault(composed(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def look_alike(name: str, others: Iterable[str]) -> str | None:
    """Another name that looks like this one; None if there is none."""
    if name.isascii():
        return None
    wanted = composed(name)
    return next((other for other in others if other != name and composed(other) == wanted), None)


def spelled(names: Iterable[str]) -> str:
    """The names with all that is not ASCII escaped, which shows how they differ."""
    return " and ".join(ascii(name) for name in names)
