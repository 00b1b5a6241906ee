"""Near-duplicates: photos of one moment, and the same face across them.

Photos belong to one group if their 64-bit difference hashes differ in few bits and they were taken close
together. A group is led by its earliest photo and everything in it is close to that leader, so a long burst
does not chain into one group. A face is keyed by its photo's group *and* its place in the picture (IoU), one
to one within each photo: two faces of one photo never share a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np

from shared.faces.boxes import match_boxes


@dataclass(frozen=True, slots=True)
class PhotoStamp:
    """What tells photos of one moment: difference hash (64 bits, ``None`` if never computed) and capture time
    (``None`` if unknown; aware or naive, but alike for all photos).
    """

    asset_id: str
    dhash: int | None
    captured_at: datetime | None


@dataclass(frozen=True, slots=True)
class FacePlace:
    """A face's place: box ``x, y, w, h`` in pixels of its upright photo of ``width`` x ``height`` pixels."""

    face_id: str
    asset_id: str
    box: tuple[float, float, float, float]
    width: int
    height: int


class FaceKey(NamedTuple):
    """Equal keys: the same face in near-duplicate photos. ``group`` is the leading photo's asset id."""

    group: str
    place: int


def group_photos(photos: Sequence[PhotoStamp], *, max_bits: int = 5, max_seconds: float = 10.0) -> dict[str, str]:
    """Map every asset id to the id of the photo that leads its group (itself if nothing is near).

    Near: at most ``max_bits`` bits and ``max_seconds`` from the leader. Without a capture time only an equal
    hash is near enough; without a hash nothing is. Ties of time are broken by asset id, so the order of
    ``photos`` does not matter.
    """
    leaders: dict[str, str] = {}
    timed = sorted(
        ((p.captured_at, p.asset_id, p.dhash) for p in photos if p.captured_at is not None and p.dhash is not None),
        key=lambda item: item[:2],
    )
    recent: list[tuple[datetime, str, int]] = []
    for taken, asset_id, dhash in timed:
        recent = [leader for leader in recent if (taken - leader[0]).total_seconds() <= max_seconds]
        near = next((leader for leader in recent if (leader[2] ^ dhash).bit_count() <= max_bits), None)
        if near is None:
            recent.append((taken, asset_id, dhash))
        leaders[asset_id] = asset_id if near is None else near[1]
    equal: dict[int, str] = {}
    for photo in sorted(photos, key=lambda p: p.asset_id):
        if photo.asset_id in leaders:
            continue
        if photo.dhash is None:
            leaders[photo.asset_id] = photo.asset_id
        else:
            leaders[photo.asset_id] = equal.setdefault(photo.dhash, photo.asset_id)
    return leaders


def key_faces(faces: Sequence[FacePlace], leaders: dict[str, str], *, min_iou: float = 0.3) -> dict[str, FaceKey]:
    """Map every face id to its key, given :func:`group_photos` (an asset missing there leads itself).

    Places are compared as shares of the photo's width and height, so a resized copy still matches. Photo by
    photo, the leader first, each face takes the free place it overlaps most, at least ``min_iou``, best pairs
    first; the rest open new places.
    """
    photos: dict[str, dict[str, list[FacePlace]]] = {}
    for face in faces:
        photos.setdefault(leaders.get(face.asset_id, face.asset_id), {}).setdefault(face.asset_id, []).append(face)
    keys: dict[str, FaceKey] = {}
    for group, members in photos.items():
        places = np.empty((0, 4))
        for asset_id in sorted(members, key=lambda name: (name != group, name)):
            shown = sorted(members[asset_id], key=lambda face: face.face_id)
            boxes = np.array([_relative_box(face) for face in shown])
            taken = {row: place for row, place, _ in match_boxes(boxes, places, min_iou)}
            for row, face in enumerate(shown):
                if row not in taken:
                    taken[row] = len(places)
                    places = np.concatenate([places, boxes[row : row + 1]])
                keys[face.face_id] = FaceKey(group, taken[row])
    return keys


def _relative_box(face: FacePlace) -> tuple[float, float, float, float]:
    x, y, w, h = face.box
    return x / face.width, y / face.height, w / face.width, h / face.height
