"""Who is in a photo, as the demo is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from demo.client import FoundFace
from demo.truth import Photo, TrueFace, Truth, read_folder


def found(face_id: str, asset_id: str, box: tuple[float, float, float, float]) -> FoundFace:
    return FoundFace(face_id, asset_id, box, 0.5, "", "")


def test_a_face_is_the_drawn_one_it_overlaps_and_each_drawn_one_once() -> None:
    drawn = [
        TrueFace("a", (0, 0, 100, 100), "Anna", "Anna"),
        TrueFace("a", (200, 0, 100, 100), "stranger 1", None),
    ]
    truth = Truth([Photo("a", Path("a.jpg"))], drawn)
    faces = [
        found("right", "a", (5, 5, 100, 100)),
        found("double", "a", (30, 30, 100, 100)),
        found("stranger", "a", (200, 10, 100, 100)),
        found("nothing", "a", (500, 500, 50, 50)),
        found("elsewhere", "b", (0, 0, 100, 100)),
    ]
    assert truth.identify(faces) == {"right": "Anna", "stranger": "stranger 1"}
    assert truth.names() == {"Anna": "Anna"}


def test_a_folder_names_the_largest_face_of_its_photos(tmp_path: Path) -> None:
    for name in ("Anna/one.jpg", "Anna/deeper/two.PNG", "loose.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "Anna" / "notes.txt").write_text("no photo")
    truth = read_folder(tmp_path)
    assert [photo.asset_id for photo in truth.photos] == ["Anna/deeper/two.PNG", "Anna/one.jpg", "loose.jpg"]
    faces = [
        found("small", "Anna/one.jpg", (0, 0, 10, 10)),
        found("large", "Anna/one.jpg", (0, 0, 20, 20)),
        found("nobody", "loose.jpg", (0, 0, 20, 20)),
    ]
    assert truth.identify(faces) == {"large": "Anna"}


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no photos"):
        read_folder(tmp_path)
