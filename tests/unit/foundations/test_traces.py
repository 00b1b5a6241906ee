"""Taking a person out of texts: whole words and ids, in any JSON, and nothing else."""

from __future__ import annotations

from uuid import UUID

import pytest

from shared.traces import NAMELESS, NOBODY, Traces

HER = UUID("0193b2f0-0000-7000-8000-00000000000a")
TRACES = Traces.of([HER], ["Ann", "Ann Lee", 'Jo "J" Ray', "王芳", ""])


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("not Ann, but Anna", f"not {NAMELESS}, but Anna"),
        ("ann lee's photo", f"{NAMELESS}'s photo"),
        ('by Jo "J" Ray.', f"by {NAMELESS}."),
        ("王芳", NAMELESS),
        ("Joann and annex", "Joann and annex"),
        (f"person '{HER}' and {str(HER).upper()}", f"person '{NOBODY}' and {NOBODY}"),
        ("", ""),
    ],
)
def test_words_and_ids_go_and_parts_of_words_stay(text: str, cleaned: str) -> None:
    assert TRACES.clean_text(text) == cleaned


def test_json_keeps_its_shape() -> None:
    value = {"people": [{str(HER): {"name": "Ann Lee", "faces": 3, "best": None}}], "ok": True}
    assert TRACES.clean_json(value) == {"people": [{NOBODY: {"name": NAMELESS, "faces": 3, "best": None}}], "ok": True}
    assert TRACES.ids_alone.clean_json(value) == {
        "people": [{NOBODY: {"name": "Ann Lee", "faces": 3, "best": None}}],
        "ok": True,
    }


def test_a_key_is_a_word_of_the_program_and_no_name() -> None:
    value = {"faces": 3, "Before": {str(HER): "faces"}}
    cleaned = {"faces": 3, "Before": {NOBODY: NAMELESS}}
    assert Traces.of([HER], ["Faces", "Before"]).clean_json(value) == cleaned


def test_the_pattern_finds_names_as_json_writes_them() -> None:
    words = TRACES.sql_pattern.split("|")
    assert str(HER).replace("-", r"\-") in words
    assert any(r"\\\"J\\\"" in word or r'\\"J\\"' in word for word in words)
    assert "" not in words
