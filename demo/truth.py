"""Who is really in the photos: from a drawn album's truth, or from the names of folders."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from demo.client import FoundFace
from shared.faces.boxes import match_boxes

SAME_FACE_IOU = 0.5
IMAGES = frozenset({".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class TrueFace:
    """A face that is in a photo. ``identity`` is unique to a person; ``name`` only of those the owner knows."""

    asset_id: str
    box: tuple[float, float, float, float]
    identity: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of the library."""

    asset_id: str
    path: Path


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a library. ``faces`` is None where nobody has drawn boxes: then only folder names speak."""

    photos: Sequence[Photo]
    faces: Sequence[TrueFace] | None
    folder_names: Mapping[str, str] = field(default_factory=dict)
    birth_dates: Mapping[str, str] = field(default_factory=dict)

    def identify(self, found: Sequence[FoundFace]) -> dict[str, str]:
        """Identity of each found face by face id; faces nobody can tell are left out.

        With boxes: by IoU of at least 0.5, each true face once. With folder names: the largest face of a photo is the
        person the folder is named after.
        """
        by_asset: dict[str, list[FoundFace]] = defaultdict(list)
        for face in found:
            by_asset[face.asset_id].append(face)
        if self.faces is None:
            return {
                max(faces, key=lambda face: face.box[2] * face.box[3]).face_id: self.folder_names[asset_id]
                for asset_id, faces in by_asset.items()
                if asset_id in self.folder_names
            }
        true: dict[str, list[TrueFace]] = defaultdict(list)
        for known in self.faces:
            true[known.asset_id].append(known)
        identities: dict[str, str] = {}
        for asset_id, faces in by_asset.items():
            drawn = true.get(asset_id, [])
            if drawn:
                pairs = match_boxes(
                    np.array([face.box for face in faces]),
                    np.array([face.box for face in drawn]),
                    SAME_FACE_IOU,
                )
                identities |= {faces[i].face_id: drawn[j].identity for i, j, _ in pairs}
        return identities

    def names(self) -> dict[str, str]:
        """Name of each identity the owner knows."""
        if self.faces is None:
            return {name: name for name in self.folder_names.values()}
        return {face.identity: face.name for face in self.faces if face.name is not None}


def read_album(folder: Path) -> Truth:
    """The truth of an album that ``demo.drawing`` has drawn."""
    album = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    faces = [
        TrueFace(
            asset_id=photo["asset_id"],
            box=(face["box"][0], face["box"][1], face["box"][2], face["box"][3]),
            identity=face["person"] or f"stranger {face['stranger_id']}",
            name=face["person"],
        )
        for photo in album["photos"]
        for face in photo["faces"]
    ]
    photos = [Photo(photo["asset_id"], folder / photo["file"]) for photo in album["photos"]]
    return Truth(photos, faces, birth_dates={person["name"]: person["birth_date"] for person in album["people"]})


def read_folder(folder: Path) -> Truth:
    """Anyone's photos: every image below a folder; those in sub-folders are of the person the sub-folder is named after.

    Raises ``FileNotFoundError`` if there is no image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    if not paths:
        raise FileNotFoundError(f"no photos below {folder}")
    photos = [Photo(_asset_id(path.relative_to(folder)), path) for path in paths]
    named = {photo.asset_id: photo.path.relative_to(folder).parts[0] for photo in photos if photo.path.parent != folder}
    return Truth(photos, None, named)


def _asset_id(relative: Path) -> str:
    # An asset id has at most 128 characters; the end of a path tells photos apart better than its beginning.
    return relative.as_posix()[-128:]
