"""Which faces stand for a person."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.faces.embeddings import normalise
from shared.faces.eras import Era
from shared.faces.near_duplicates import FaceKey
from shared.faces.prototypes import (
    Choice,
    ChosenPrototype,
    PrototypeCandidate,
    PrototypeRole,
    PrototypeRules,
    choose_prototypes,
    measure_merit,
)


def make_face(number: int, quality: float) -> PrototypeCandidate:
    return PrototypeCandidate(f"f{number:03}", f"a{number:03}", quality=quality, merit=quality)


def person(count: int, seed: int = 0) -> tuple[list[PrototypeCandidate], np.ndarray]:
    """Faces of distinct photos with falling quality."""
    random = np.random.default_rng(seed)
    vectors = normalise(random.standard_normal(32) + 0.8 * random.standard_normal((count, 32)))
    faces = [make_face(i, 0.95 - 0.005 * i) for i in range(count)]
    return faces, vectors


def test_the_best_face_is_primary_and_the_cap_holds() -> None:
    faces, vectors = person(60)
    chosen = choose_prototypes(faces, vectors, PrototypeRules(max_prototypes=10))
    assert len(chosen) == 10
    assert [c.role for c in chosen].count(PrototypeRole.PRIMARY) == 1
    assert chosen[0].role is PrototypeRole.PRIMARY
    assert all(c.role is PrototypeRole.EXEMPLAR for c in chosen[1:])


def test_exemplars_cover_both_looks() -> None:
    random = np.random.default_rng(1)
    looks = normalise(random.standard_normal((2, 32)))
    vectors = normalise(looks[np.repeat([0, 1], [40, 5])] + 0.1 * random.standard_normal((45, 32)))
    faces = [make_face(i, 0.8) for i in range(45)]
    chosen = choose_prototypes(faces, vectors, PrototypeRules(max_prototypes=2))
    assert {c.index < 40 for c in chosen} == {True, False}


def test_a_stranger_of_the_best_quality_is_not_primary() -> None:
    faces, vectors = person(20)
    faces[7] = replace(faces[7], quality=1.0, merit=1.0)
    vectors[7] = -vectors[0]
    assert choose_prototypes(faces, vectors)[0].index != 7


def test_one_per_photo_and_per_near_duplicate_group() -> None:
    faces, vectors = person(12)
    faces = [
        replace(f, asset_id=f"a{i // 2}", near_duplicate_key=FaceKey(f"g{i // 6}", 0)) for i, f in enumerate(faces)
    ]
    chosen = choose_prototypes(faces, vectors)
    assert len(chosen) == 2
    assert {faces[c.index].near_duplicate_key for c in chosen} == {FaceKey("g0", 0), FaceKey("g1", 0)}


def test_eras_have_their_best_and_their_quota() -> None:
    faces, vectors = person(40)
    eras = [Era.CHILD if i % 4 == 0 else Era.ADULT for i in range(40)]
    faces = [replace(f, era=era) for f, era in zip(faces, eras, strict=True)]
    faces.append(replace(make_face(900, 0.1), era=Era.SENIOR))
    vectors = np.concatenate([vectors, vectors[:1]])
    chosen = choose_prototypes(faces, vectors, PrototypeRules(max_per_era=3))
    by_era = {era: [c.role for c in chosen if c.era is era] for era in Era}
    assert len(by_era[Era.CHILD]) == len(by_era[Era.ADULT]) == 3
    first = {era: roles[0] for era, roles in by_era.items() if roles}
    assert set(first.values()) == {PrototypeRole.PRIMARY, PrototypeRole.TEMPORAL, PrototypeRole.FALLBACK}
    assert first[Era.SENIOR] is PrototypeRole.FALLBACK


def test_only_bad_faces_give_one_fallback() -> None:
    faces, vectors = person(5)
    faces = [replace(f, quality=0.1, merit=0.1) for f in faces]
    (only,) = choose_prototypes(faces, vectors)
    assert only.role is PrototypeRole.FALLBACK
    assert choose_prototypes([], np.empty((0, 32), dtype=np.float32)) == ()


def test_a_humans_word_wins_over_quality_photo_and_cap() -> None:
    faces, vectors = person(8)
    words = {4: Choice.REFUSED, 5: Choice.PINNED, 6: Choice.CHOSEN, 7: Choice.CHOSEN, 0: Choice.REFUSED}
    for index, choice in words.items():
        faces[index] = replace(faces[index], quality=0.01, merit=0.01, asset_id="same", choice=choice)
    chosen = choose_prototypes(faces, vectors, PrototypeRules(max_prototypes=2))
    assert {c.index: c.pinned for c in chosen} == {5: True, 6: False, 7: False}
    # There is no room for a better one, so the primary is one of them.
    assert [c.role for c in chosen].count(PrototypeRole.PRIMARY) == 1


def test_a_kept_face_is_primary_only_if_none_is_better() -> None:
    faces, vectors = person(8)
    poor = [*faces[:7], replace(faces[7], quality=0.01, merit=0.01, choice=Choice.PINNED)]
    roles = {c.index: c.role for c in choose_prototypes(poor, vectors)}
    assert roles[7] is PrototypeRole.EXEMPLAR
    assert PrototypeRole.PRIMARY in roles.values()
    best = [*faces[:7], replace(faces[7], quality=1.0, merit=1.0, era=Era.TEEN, choice=Choice.PINNED)]
    vectors[7] = vectors[:7].mean(axis=0)
    vectors[7] /= np.linalg.norm(vectors[7])
    roles = {c.index: c.role for c in choose_prototypes(best, vectors)}
    assert roles[7] is PrototypeRole.PRIMARY
    assert list(roles.values()).count(PrototypeRole.PRIMARY) == 1


def test_of_two_pins_of_an_era_the_worthier_is_pinned() -> None:
    faces, vectors = person(6)
    faces = [replace(f, era=Era.TEEN) for f in faces]
    for index in (1, 2, 3):
        faces[index] = replace(faces[index], merit=0.1 * index, choice=Choice.PINNED)
    faces[4] = replace(faces[4], era=None, choice=Choice.PINNED)
    chosen = choose_prototypes(faces, vectors)
    assert {c.index for c in chosen} >= {1, 2, 3, 4}
    assert {c.index for c in chosen if c.pinned} == {3, 4}


def test_who_looks_at_the_camera_and_is_large_has_merit() -> None:
    assert measure_merit(0.8, 1.0, 0.0, 0.0) == pytest.approx(0.8)
    assert measure_merit(0.8, 0.25, 0.0, 0.0) == pytest.approx(0.4)
    assert measure_merit(0.8, 1.0, -60.0, 0.0) == measure_merit(0.8, 1.0, 60.0, 0.0) == pytest.approx(0.4)
    assert measure_merit(0.8, 1.0, 30.0, 20.0) < measure_merit(0.8, 1.0, 30.0, 0.0)
    assert measure_merit(0.8, 1.0, 120.0, 0.0) == 0.0


Made = tuple[list[PrototypeCandidate], np.ndarray]
RULES = PrototypeRules(max_prototypes=9, max_per_era=2)


@st.composite
def made_people(draw: st.DrawFn) -> Made:
    """Up to forty faces of somebody, with few photos, bursts and eras, so that limits meet."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    count = draw(st.integers(1, 40))
    vectors = normalise(random.standard_normal(8) + random.standard_normal((count, 8)))
    words = [*Choice, *[None] * draw(st.integers(1, 30))]
    eras = [None, *Era]
    faces = []
    for number in range(count):
        quality = float(random.choice([0.1, 0.5, 0.9]))
        burst = FaceKey(f"g{random.integers(0, 8)}", 0) if random.random() < 0.5 else None
        faces.append(
            PrototypeCandidate(
                f"f{number:03}",
                f"a{random.integers(0, 20)}",
                quality,
                quality * float(random.choice([0.5, 1.0])),
                near_duplicate_key=burst,
                era=eras[int(random.integers(0, len(eras)))],
                choice=words[int(random.integers(0, len(words)))],
            )
        )
    return faces, vectors


@settings(max_examples=60, deadline=None)
@given(made_people())
def test_words_are_kept_and_limits_hold(made: Made) -> None:
    faces, vectors = made
    chosen = choose_prototypes(faces, vectors, RULES)
    indices = [c.index for c in chosen]
    assert len(indices) == len(set(indices))
    said = {word: {i for i, face in enumerate(faces) if face.choice is word} for word in Choice}
    kept = said[Choice.PINNED] | said[Choice.CHOSEN]
    assert kept <= set(indices)
    assert not said[Choice.REFUSED] & set(indices)
    assert bool(chosen) == (len(said[Choice.REFUSED]) < len(faces))
    # A pin an era, and only of what was pinned.
    pinned = [c for c in chosen if c.pinned]
    assert {c.era for c in pinned} == {faces[i].era for i in said[Choice.PINNED]}
    assert len(pinned) == len({c.era for c in pinned})
    # The limits hold for what was not kept by hand, and what was counts towards them.
    assert len(chosen) <= max(RULES.max_prototypes, len(kept))
    for era in Era:
        of_era = sum(c.era is era for c in chosen)
        assert of_era <= max(RULES.max_per_era, sum(faces[i].era is era for i in kept))
    free = [i for i in indices if i not in kept]
    photos = [faces[i].asset_id for i in free] + [*{faces[i].asset_id for i in kept}]
    assert len(photos) == len(set(photos))
    bursts = [faces[i].near_duplicate_key for i in free] + [*{faces[i].near_duplicate_key for i in kept}]
    bursts = [burst for burst in bursts if burst is not None]
    assert len(bursts) == len(set(bursts))
    assert [c.role for c in chosen].count(PrototypeRole.PRIMARY) <= 1
    assert all(faces[i].quality >= RULES.min_quality for i, c in zip(indices, chosen, strict=True) if is_good(c, kept))


def is_good(chosen: ChosenPrototype, kept: set[int]) -> bool:
    return chosen.index not in kept and chosen.role is not PrototypeRole.FALLBACK


@settings(max_examples=40, deadline=None)
@given(made_people(), st.randoms(use_true_random=False))
def test_the_same_faces_in_any_order_give_the_same_prototypes(made: Made, random: Random) -> None:
    faces, vectors = made
    order = list(range(len(faces)))
    random.shuffle(order)
    chosen = choose_prototypes(faces, vectors, RULES)
    again = choose_prototypes([faces[i] for i in order], vectors[order], RULES)
    assert [(faces[c.index].face_id, c.role, c.pinned) for c in chosen] == [
        (faces[order[c.index]].face_id, c.role, c.pinned) for c in again
    ]


def test_vectors_must_fit() -> None:
    faces, vectors = person(3)
    with pytest.raises(ValueError, match="vector"):
        choose_prototypes(faces, vectors[:2])
