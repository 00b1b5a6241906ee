"""Enumerations of the contract, in the domain's words and back."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from shared.errors import InvalidRequest

Word = TypeVar("Word", bound=StrEnum)


def from_enum(name_of: Callable[[Any], str], number: int, words: type[Word], prefix: str, field: str) -> Word:
    """The domain's word for a value of a proto enum whose names begin with ``prefix``.

    Raises :class:`InvalidRequest` naming ``field`` for a number the contract does not have, and for UNSPECIFIED.
    """
    try:
        return words(name_of(number).removeprefix(prefix))
    except ValueError as error:
        raise InvalidRequest(f"{field} has no value {number}", field=field) from error
