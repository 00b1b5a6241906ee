"""Which faces stand for a person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.faces.embeddings import normalise
from shared.faces.eras import Era
from shared.faces.prototypes import PrototypeCandidate, PrototypeRole, PrototypeRules, choose_prototypes


def person(count: int, seed: int = 0) -> tuple[list[PrototypeCandidate], np.ndarray]:
    """Faces of distinct photos with falling quality."""
    random = np.random.default_rng(seed)
    vectors = normalise(random.standard_normal(32) + 0.8 * random.standard_normal((count, 32)))
    faces = [PrototypeCandidate(f"f{i:03}", f"a{i:03}", quality=0.95 - 0.005 * i) for i in range(count)]
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
    faces = [PrototypeCandidate(f"f{i:03}", f"a{i:03}", 0.8) for i in range(45)]
    chosen = choose_prototypes(faces, vectors, PrototypeRules(max_prototypes=2))
    assert {c.index < 40 for c in chosen} == {True, False}


def test_a_stranger_of_the_best_quality_is_not_primary() -> None:
    faces, vectors = person(20)
    faces[7] = replace(faces[7], quality=1.0)
    vectors[7] = -vectors[0]
    assert choose_prototypes(faces, vectors)[0].index != 7


def test_one_per_photo_and_per_near_duplicate_group() -> None:
    faces, vectors = person(12)
    faces = [replace(f, asset_id=f"a{i // 2}", near_duplicate_key=f"g{i // 6}") for i, f in enumerate(faces)]
    chosen = choose_prototypes(faces, vectors)
    assert len(chosen) == 2
    assert {faces[c.index].near_duplicate_key for c in chosen} == {"g0", "g1"}


def test_eras_have_their_best_and_their_quota() -> None:
    faces, vectors = person(40)
    eras = [Era.CHILD if i % 4 == 0 else Era.ADULT for i in range(40)]
    faces = [replace(f, era=era) for f, era in zip(faces, eras, strict=True)]
    faces.append(PrototypeCandidate("f900", "a900", quality=0.1, era=Era.SENIOR))
    vectors = np.concatenate([vectors, vectors[:1]])
    chosen = choose_prototypes(faces, vectors, PrototypeRules(max_per_era=3))
    by_era = {era: [c.role for c in chosen if c.era is era] for era in Era}
    assert len(by_era[Era.CHILD]) == len(by_era[Era.ADULT]) == 3
    first = {era: roles[0] for era, roles in by_era.items() if roles}
    assert set(first.values()) == {PrototypeRole.PRIMARY, PrototypeRole.TEMPORAL, PrototypeRole.FALLBACK}
    assert first[Era.SENIOR] is PrototypeRole.FALLBACK


def test_only_bad_faces_give_one_fallback() -> None:
    faces, vectors = person(5)
    faces = [replace(f, quality=0.1) for f in faces]
    (only,) = choose_prototypes(faces, vectors)
    assert only.role is PrototypeRole.FALLBACK
    assert choose_prototypes([], np.empty((0, 32), dtype=np.float32)) == ()


def test_pins_win_over_quality_photo_and_cap() -> None:
    faces, vectors = person(8)
    for i in (5, 6, 7):
        faces[i] = replace(faces[i], quality=0.01, asset_id="same", pinned=PrototypeRole.TEMPORAL)
    chosen = choose_prototypes(faces, vectors, PrototypeRules(max_prototypes=2))
    assert {c.index for c in chosen} == {5, 6, 7}
    assert all(c.pinned and c.role is PrototypeRole.TEMPORAL for c in chosen)


def test_a_pinned_primary_is_the_only_primary() -> None:
    faces, vectors = person(8)
    faces[5] = replace(faces[5], pinned=PrototypeRole.PRIMARY)
    primaries = [c for c in choose_prototypes(faces, vectors) if c.role is PrototypeRole.PRIMARY]
    assert [c.index for c in primaries] == [5]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40))
def test_limits_hold_and_order_of_rows_does_not_matter(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    vectors = normalise(random.standard_normal(8) + random.standard_normal((count, 8)))
    eras = [None, *Era]
    faces = [
        PrototypeCandidate(
            f"f{i:03}",
            f"a{random.integers(0, 20)}",
            float(random.choice([0.1, 0.5, 0.9])),
            near_duplicate_key=None if random.random() < 0.5 else f"g{random.integers(0, 8)}",
            era=eras[int(random.integers(0, len(eras)))],
            pinned=PrototypeRole.EXEMPLAR if random.random() < 0.05 else None,
        )
        for i in range(count)
    ]
    rules = PrototypeRules(max_prototypes=9, max_per_era=2)
    chosen = choose_prototypes(faces, vectors, rules)
    order = random.permutation(count)
    again = choose_prototypes([faces[i] for i in order], vectors[order], rules)
    assert [(faces[c.index].face_id, c.role) for c in chosen] == [
        (faces[order[c.index]].face_id, c.role) for c in again
    ]
    free = [c for c in chosen if not c.pinned]
    pins = sum(f.pinned is not None for f in faces)
    assert chosen
    assert sum(c.pinned for c in chosen) == pins
    assert len(chosen) <= max(9, pins)
    assets = [faces[c.index].asset_id for c in free]
    assert len(assets) == len(set(assets))
    for era in Era:
        assert sum(c.era is era for c in chosen) <= max(2, sum(f.era is era and f.pinned is not None for f in faces))


def test_vectors_must_fit() -> None:
    faces, vectors = person(3)
    with pytest.raises(ValueError, match="vector"):
        choose_prototypes(faces, vectors[:2])
