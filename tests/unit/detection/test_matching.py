"""Which found faces are stored already."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from services.detection.domain.matching import StorePlan, plan_storing
from services.detection.domain.model import (
    FaceOrigin,
    FaceState,
    FoundFace,
    KnownFace,
    PhotoFound,
    QualityFigures,
)
from shared.clock import SystemClock
from shared.faces.boxes import Box
from shared.ids import RandomIds

IDS = RandomIds(SystemClock())
QUALITY = QualityFigures(overall=0.5, size=0.5, sharpness=0.5, pose=0.5, yaw=0, pitch=0, roll=0)


def box(left: float) -> Box:
    return Box(left, 10.0, 40.0, 50.0)


def photo(asset_id: str, *lefts: float) -> PhotoFound:
    faces = tuple(FoundFace(box(left), (0.0,) * 10, 0.9, QUALITY, b"", 1.0) for left in lefts)
    return PhotoFound(asset_id, faces, 400, 300, 1, None, 0, "model")


def known(
    asset_id: str,
    left: float,
    *,
    state: FaceState = FaceState.ACTIVE,
    origin: FaceOrigin = FaceOrigin.DETECTED,
    claimed: bool = False,
) -> KnownFace:
    return KnownFace(uuid4(), asset_id, box(left), state, origin, claimed)


def plan(photos: list[PhotoFound], stored: list[KnownFace]) -> StorePlan:
    return plan_storing(photos, stored, IDS, 0.5)


def test_unknown_faces_are_added() -> None:
    made = plan([photo("a", 0, 100), photo("b")], [])
    assert [(face.asset_id, face.found.box.x) for face in made.added] == [("a", 0), ("a", 100)]
    assert len({face.face_id for face in made.added}) == 2
    assert made.face_counts == {"a": 2, "b": 0}
    assert (made.kept, made.unseen) == (0, 0)


def test_a_face_found_again_keeps_its_id_and_takes_the_new_box() -> None:
    stored = known("a", 0)
    made = plan([photo("a", 5)], [stored])
    assert [(face.face_id, face.found.box.x) for face in made.updated] == [(stored.face_id, 5)]
    assert not made.added
    assert not made.deleted
    assert made.face_counts == {"a": 1}
    assert made.kept == 1


def test_faces_of_another_photo_never_match() -> None:
    made = plan([photo("a", 0), photo("b")], [known("b", 0)])
    assert len(made.added) == 1
    assert made.unseen == 1


@pytest.mark.parametrize(
    "stored",
    [
        known("a", 0, state=FaceState.IGNORED),
        known("a", 0, state=FaceState.NOT_A_FACE),
        known("a", 0, origin=FaceOrigin.MANUAL),
        known("a", 0, origin=FaceOrigin.IMPORTED),
        known("a", 0, claimed=True),
    ],
)
def test_what_somebody_worked_on_stays(stored: KnownFace) -> None:
    made = plan([photo("a")], [stored])
    assert made.deleted == []
    assert made.remaining == [stored.face_id]
    assert made.face_counts == {"a": 1}
    assert made.unseen == 1


def test_what_only_the_detector_knew_goes() -> None:
    stored = known("a", 0)
    made = plan([photo("a", 200)], [stored])
    assert made.deleted == [stored.face_id]
    assert made.remaining == []
    assert made.face_counts == {"a": 1}


def test_a_box_drawn_by_hand_is_matched_and_left_as_it_is() -> None:
    made = plan([photo("a", 3)], [known("a", 0, origin=FaceOrigin.MANUAL)])
    assert (made.added, made.updated, made.kept) == ([], [], 1)


def test_each_stored_face_is_found_once() -> None:
    stored = [known("a", 0), known("a", 12)]
    made = plan([photo("a", 2, 11)], stored)
    taken: list[UUID] = [face.face_id for face in made.updated]
    assert taken == [stored[0].face_id, stored[1].face_id]
