"""Where a slice that embeds faces again stands, and what it remembers of photos a detector broke off at."""

from __future__ import annotations

from services.detection.domain.migration import EmbeddingPlace


def test_it_is_kept_as_it_is() -> None:
    place = EmbeddingPlace("m", ("n", "o"), {"p": 2})
    assert EmbeddingPlace.parse(place.describe()) == place
    assert EmbeddingPlace.parse({}) == EmbeddingPlace()


def test_what_failed_is_forgotten_once_it_lies_behind() -> None:
    place = EmbeddingPlace().with_failed(["a", "b"])
    assert place.failed == ("a", "b")
    assert place.behind("c") == EmbeddingPlace("c")


def test_after_a_break_nothing_is_forgotten() -> None:
    place = EmbeddingPlace().with_failed(["x"]).with_breaks(["a", "b"], alone=False)
    assert place.behind("b") == EmbeddingPlace("b", ("x",), {"a": 1, "b": 1})


def test_only_breaks_on_trial_count_up() -> None:
    place = EmbeddingPlace().with_breaks(["a", "b"], alone=False).with_breaks(["a", "b"], alone=False)
    assert place.breaks == {"a": 1, "b": 1}
    assert place.with_breaks(["b"], alone=True).breaks == {"a": 1, "b": 2}
