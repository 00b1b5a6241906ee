"""Names: what they are kept, compared and found alike by."""

from __future__ import annotations

import importlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.persons.domain.naming import clean_name, make_name_key, make_name_prefix, make_trigrams
from shared.errors import InvalidRequest

# Names of any script, with what stands in names besides letters.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)


@pytest.mark.parametrize(
    ("name", "trigrams"),
    [
        ("Anna", ["  a", " an", "ann", "na ", "nna"]),
        ("O'Neil", ["  n", "  o", " ne", " o ", "eil", "il ", "nei"]),
        ("王芳", ["  王", " 王芳", "王芳 "]),
        ("Ο", ["  ο", " ο "]),
        ("...", []),
        ("", []),
    ],
)
def test_trigrams_are_those_of_the_words_padded(name: str, trigrams: list[str]) -> None:
    assert make_trigrams(make_name_key(name)) == trigrams


def test_a_mark_belongs_to_its_letter() -> None:
    # Devanagari writes vowels as marks: without them the word would fall apart.
    assert make_trigrams("नीता") == sorted(["  न", " नी", "नीत", "ीता", "ता "])


@given(NAMES)
def test_the_migration_made_the_same_trigrams(name: str) -> None:
    migration = importlib.import_module("shared.db.migrations.versions.0003_persons_in_depth")
    assert make_trigrams(make_name_key(name)) == migration._trigrams(make_name_key(name))


@given(NAMES)
def test_case_and_unicode_form_do_not_change_a_key(name: str) -> None:
    assert make_name_key(unicodedata.normalize("NFD", name)) == make_name_key(unicodedata.normalize("NFC", name))
    assert make_name_key(make_name_key(name)) == make_name_key(name)


@pytest.mark.parametrize(
    ("typed", "prefix"), [("  Anna   L", "anna l"), ("Anna ", "anna "), ("   ", ""), ("", ""), ("ＡＮＮＡ", "anna")]
)
def test_a_prefix_has_the_white_space_that_names_have(typed: str, prefix: str) -> None:
    assert make_name_prefix(typed) == prefix


@pytest.mark.parametrize("name", ["", " \t ", "a\x00b", "a\nb", "x" * 201, "\ud800"])
def test_what_is_no_name_is_refused_by_field(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        clean_name(name, 200)
    assert [violation.field for violation in refused.value.violations] == ["person.name"]
