"""Which found faces are stored already: new faces, faces that are known, faces that are gone.

A face found again keeps its row, and with it all work people did on it. "Again" is decided by the overlap of the boxes,
never by equal numbers: another model version or another decoder moves a box by a pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from services.detection.domain.model import FaceOrigin, KnownFace, PhotoFound, PlacedFace
from shared.faces.boxes import Box, match_boxes
from shared.ids import IdFactory


@dataclass(slots=True)
class StorePlan:
    """What to write for some photos.

    ``kept`` counts stored faces found again, ``unseen`` those that were not; of these, ``deleted`` are removed.
    ``face_counts``: faces per photo afterwards. ``remaining``: stored faces that stay.
    """

    added: list[PlacedFace] = field(default_factory=list)
    updated: list[PlacedFace] = field(default_factory=list)
    deleted: list[UUID] = field(default_factory=list)
    remaining: list[UUID] = field(default_factory=list)
    face_counts: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    unseen: int = 0


def plan_storing(photos: Sequence[PhotoFound], known: Iterable[KnownFace], ids: IdFactory, min_iou: float) -> StorePlan:
    """Match found faces to stored ones, photo by photo, at an overlap of at least ``min_iou`` (IoU).

    A box drawn by hand is matched, so that its face is not added twice, but never moved.
    """
    stored: dict[str, list[KnownFace]] = defaultdict(list)
    for face in known:
        stored[face.asset_id].append(face)
    plan = StorePlan()
    for photo in photos:
        _plan_photo(plan, photo, stored[photo.asset_id], ids, min_iou)
    return plan


def _plan_photo(
    plan: StorePlan, photo: PhotoFound, stored: Sequence[KnownFace], ids: IdFactory, min_iou: float
) -> None:
    pairs = match_boxes(_rows(face.box for face in photo.faces), _rows(face.box for face in stored), min_iou)
    matches = {found: stored[row] for found, row, _ in pairs}
    for index, found in enumerate(photo.faces):
        match = matches.get(index)
        if match is None:
            plan.added.append(PlacedFace(ids.new_uuid(), photo.asset_id, found))
        elif match.origin is not FaceOrigin.MANUAL:
            plan.updated.append(PlacedFace(match.face_id, photo.asset_id, found))
    seen = {face.face_id for face in matches.values()}
    gone = [face.face_id for face in stored if face.face_id not in seen and face.may_go]
    plan.kept += len(seen)
    plan.unseen += len(stored) - len(seen)
    plan.deleted += gone
    plan.remaining += [face.face_id for face in stored if face.face_id not in gone]
    plan.face_counts[photo.asset_id] = len(photo.faces) - len(seen) + len(stored) - len(gone)


def _rows(boxes: Iterable[Box]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([(box.x, box.y, box.width, box.height) for box in boxes], np.float64).reshape(-1, 4)
