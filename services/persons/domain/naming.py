"""Names of people are text in any script."""

from __future__ import annotations

import unicodedata

from shared.errors import InvalidRequest


def clean_name(name: str, max_length: int, field: str = "person.name") -> str:
    """The name as it is kept: NFC, trimmed, inner white space single.

    Raises :class:`InvalidRequest` if nothing is left, it is longer than ``max_length`` characters, or it holds control
    characters (Unicode category Cc) or unpaired surrogates.
    """
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name.strip()):
        raise InvalidRequest(f"{field} must not hold control characters", field=field)
    cleaned = " ".join(unicodedata.normalize("NFC", name).split())
    if not cleaned:
        raise InvalidRequest(f"{field} must not be empty", field=field)
    if len(cleaned) > max_length:
        raise InvalidRequest(f"{field} must have at most {max_length} characters", field=field)
    return cleaned


def make_name_key(name: str) -> str:
    """What names are compared and sorted by: case and Unicode form do not count (NFKC, case folded)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
