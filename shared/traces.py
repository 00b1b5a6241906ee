"""What a person who is forgotten is known by in texts that others wrote: their ids and their names, and how to take them out.

A whole-word match, so that to forget an Ann leaves an Anna alone. Somebody else of the same name loses it there, too: a text
does not say whom it means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from uuid import UUID

NOBODY: Final = str(UUID(int=0))
"""Stands where an id stood that something else may still read: the nil UUID (RFC 9562), which no row has."""

NAMELESS: Final = "[forgotten]"


@dataclass(frozen=True)
class Traces:
    """Ids of a person and of all who became part of them, and every name they had."""

    person_ids: tuple[UUID, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, person_ids: Collection[UUID], names: Collection[str] = ()) -> Traces:
        """In a fixed order: the longest name first, so that of two that overlap the whole is found."""
        return cls(tuple(sorted(person_ids)), tuple(sorted({*names} - {""}, key=lambda name: (-len(name), name))))

    @cached_property
    def ids_alone(self) -> Traces:
        """The same without names."""
        return Traces(self.person_ids)

    @cached_property
    def sql_pattern(self) -> str:
        """A regular expression of PostgreSQL for every text these may be in, JSON included; it finds a few more."""
        names = [spelling for name in self.names for spelling in {name, _as_in_json(name)}]
        return "|".join(re.escape(word) for word in (*map(str, self.person_ids), *names))

    def clean_text(self, text: str) -> str:
        """``text`` with :data:`NOBODY` for each id and :data:`NAMELESS` for each name."""
        for pattern, word in self._patterns:
            text = pattern.sub(word, text)
        return text

    def clean_json(self, value: Any) -> Any:
        """The same of every text in a JSON value; of its keys the ids alone, as all others are words of the program."""
        if isinstance(value, str):
            return self.clean_text(value)
        if isinstance(value, list):
            return [self.clean_json(each) for each in value]
        if isinstance(value, dict):
            return {self.ids_alone.clean_text(key): self.clean_json(each) for key, each in value.items()}
        return value

    @cached_property
    def _patterns(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        found = []
        for words, instead in ((list(map(str, self.person_ids)), NOBODY), (list(self.names), NAMELESS)):
            if words:
                either = "|".join(re.escape(word) for word in words)
                found.append((re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE), instead))
        return tuple(found)


def _as_in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
