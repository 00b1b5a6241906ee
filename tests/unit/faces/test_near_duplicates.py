"""Photos of one moment, and the same face across them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.faces.near_duplicates import FacePlace, PhotoStamp, group_photos, key_faces

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def photo(asset_id: str, dhash: int | None = 0xF0F0, seconds: float | None = 0.0) -> PhotoStamp:
    return PhotoStamp(asset_id, dhash, None if seconds is None else NOON + timedelta(seconds=seconds))


def test_close_in_time_and_bits_is_one_group() -> None:
    leaders = group_photos(
        [
            photo("a"),
            photo("b", 0xF0F0 ^ 0b11111, 10),
            photo("c", 0xF0F0 ^ 0b111111, 5),
            photo("d", 0xF0F0, 10.1),
        ]
    )
    assert leaders == {"a": "a", "b": "a", "c": "c", "d": "d"}


def test_a_long_burst_does_not_chain() -> None:
    leaders = group_photos([photo(f"p{i:02}", seconds=i * 4.0) for i in range(9)])
    assert sorted(set(leaders.values())) == ["p00", "p03", "p06"]


def test_order_of_photos_does_not_matter() -> None:
    photos = [photo(f"p{i}", 0xF0F0 ^ (1 << (i % 7)), (i * 7) % 23) for i in range(20)]
    assert group_photos(photos) == group_photos(photos[::-1])


def test_unknown_time_needs_an_equal_hash_and_no_hash_is_near_nothing() -> None:
    photos = [
        photo("a", 5, None),
        photo("b", 5, None),
        photo("c", 4, None),
        photo("d", None),
        photo("e", None),
    ]
    assert group_photos(photos) == {"a": "a", "b": "a", "c": "c", "d": "d", "e": "e"}


def face(face_id: str, asset_id: str, x: float, y: float = 10, side: float = 20, scale: int = 1) -> FacePlace:
    return FacePlace(face_id, asset_id, (x * scale, y * scale, side * scale, side * scale), 100 * scale, 100 * scale)


def test_the_same_face_in_a_smaller_copy_has_the_same_key() -> None:
    faces = [
        face("l1", "a", 10),
        face("r1", "a", 60),
        face("r2", "b", 62, scale=3),
        face("l2", "b", 11, scale=3),
    ]
    keys = key_faces(faces, {"a": "a", "b": "a"})
    assert keys["l1"] == keys["l2"]
    assert keys["r1"] == keys["r2"]
    assert keys["l1"] != keys["r1"]


def test_other_groups_and_other_places_have_other_keys() -> None:
    faces = [face("x", "a", 10), face("y", "b", 10), face("z", "c", 50)]
    keys = key_faces(faces, {"c": "a"})
    assert len(set(keys.values())) == 3


boxes = st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(1, 60))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(boxes, min_size=1, max_size=5), min_size=1, max_size=5))
def test_two_faces_of_one_photo_never_collapse(photos: list[list[tuple[int, int, int]]]) -> None:
    faces = [
        face(f"f{p}.{i}", f"p{p}", x, y, side) for p, row in enumerate(photos) for i, (x, y, side) in enumerate(row)
    ]
    keys = key_faces(faces, {f"p{p}": "p0" for p in range(len(photos))})
    assert len(keys) == len(faces)
    for p in range(len(photos)):
        own = [keys[f.face_id] for f in faces if f.asset_id == f"p{p}"]
        assert len(own) == len(set(own))
