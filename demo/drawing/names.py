"""Names for drawn people, from many places, so that the demo reads like somebody's library."""

from __future__ import annotations

_FEMININE = (
    "Amara", "Beatriz", "Chiara", "Daniela", "Elif", "Freya", "Greta", "Hana", "Ines", "Jana", "Keiko", "Leila",
    "Maren", "Nadia", "Olivia", "Priya", "Rosa", "Sanna", "Teresa", "Ulrike", "Vera", "Wanjiru", "Yara", "Zofia",
)  # fmt: skip
_MASCULINE = (
    "Anton", "Bashir", "Carlos", "David", "Emil", "Farid", "Goran", "Henrik", "Ivo", "Jonas", "Kofi", "Luca",
    "Mateo", "Nils", "Omar", "Pavel", "Quentin", "Ravi", "Samuel", "Tomasz", "Umberto", "Viktor", "Wei", "Yusuf",
)  # fmt: skip
_FAMILY = (
    "Abara", "Bianchi", "Castro", "Dahl", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jansen", "Kowalski",
    "Lindqvist", "Mbeki", "Novak", "Okafor", "Petrov", "Qureshi", "Rossi", "Silva", "Tanaka", "Ueda", "Vargas",
    "Weber", "Yilmaz", "Zhang",
)  # fmt: skip


def name_person(number: int, feminine: bool, seed: int) -> str:
    """The name of person `number` in album `seed`: a different first name for each of the first 24 of either kind."""
    first = _FEMININE if feminine else _MASCULINE
    family = _FAMILY[(seed * 7 + number * 11) % len(_FAMILY)]
    name = f"{first[(seed + number) % len(first)]} {family}"
    round_number = number // len(first)
    return name if round_number == 0 else f"{name} {'I' * (round_number + 1)}"
