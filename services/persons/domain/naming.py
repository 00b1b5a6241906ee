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


def make_name_prefix(text: str) -> str:
    """What the keys of names that begin with ``text`` begin with; white space as :func:`clean_name` leaves it."""
    words = " ".join(text.split())
    return make_name_key(f"{words} " if words and text[-1].isspace() else words)


def make_trigrams(name_key: str) -> list[str]:
    """What names are found alike by: every run of three characters of its words, each once, sorted.

    As pg_trgm makes them: a word is a run of letters, numbers and marks, with two blanks before it and one after; so a name of
    one or two characters has trigrams too, in any script. Empty for a name without any of those.
    """
    kept = "".join(character if unicodedata.category(character)[0] in "LNM" else " " for character in name_key)
    padded = (f"  {word} " for word in kept.split())
    return sorted({word[at : at + 3] for word in padded for at in range(len(word) - 2)})
