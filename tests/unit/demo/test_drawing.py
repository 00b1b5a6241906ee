"""The drawn album: the same for a seed, and true about what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.drawing import AlbumTruth, draw_album
from demo.drawing.appearance import draw_appearance, draw_light
from demo.drawing.face import draw_face
from demo.drawing.identity import SeedSpace, draw_identity
from demo.drawing.photo import Sitter, draw_photo
from demo.pack.training_data import draw_views

PHOTOS = 24


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AlbumTruth]:
    folder = tmp_path_factory.mktemp("album")
    return folder, draw_album(5, people=8, photos=PHOTOS, out=folder, workers=1)


def test_same_seed_draws_the_same_files(album: tuple[Path, AlbumTruth], tmp_path: Path) -> None:
    folder, truth = album
    again = draw_album(5, people=8, photos=PHOTOS, out=tmp_path, workers=1)
    assert again == truth
    for photo in truth.photos:
        assert (tmp_path / photo.file).read_bytes() == (folder / photo.file).read_bytes()


def test_spawned_workers_draw_the_same_as_one(album: tuple[Path, AlbumTruth], tmp_path: Path) -> None:
    assert draw_album(5, people=8, photos=PHOTOS, out=tmp_path, workers=2) == album[1]


def test_other_seed_draws_other_people(album: tuple[Path, AlbumTruth], tmp_path: Path) -> None:
    other = draw_album(6, people=8, photos=2, out=tmp_path, workers=1)
    assert {photo.asset_id for photo in other.photos}.isdisjoint(photo.asset_id for photo in album[1].photos)
    assert {person.name for person in other.people} != {person.name for person in album[1].people}


def test_truth_lies_inside_the_photo_and_landmarks_inside_their_box(album: tuple[Path, AlbumTruth]) -> None:
    for photo in album[1].photos:
        assert 1 <= len(photo.faces) <= 6
        for face in photo.faces:
            x, y, width, height = face.box
            assert x >= 0
            assert y >= 0
            assert x + width <= photo.width
            assert y + height <= photo.height
            assert 30 <= height <= 330
            for mark_x, mark_y in face.landmarks:
                assert x - 0.02 <= mark_x <= x + width + 0.02
                assert y - 0.02 <= mark_y <= y + height + 0.02


def test_landmarks_come_in_insightface_order() -> None:
    rng = np.random.default_rng(3)
    person = draw_identity(SeedSpace.ALBUM, 3, 0)
    for _ in range(20):
        patch = draw_face(person, draw_appearance(rng, person, 30, draw_light(rng), nuisance=0.5), 40)
        left_eye, right_eye, nose, left_mouth, right_mouth = patch.landmarks
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_every_face_is_a_known_person_or_a_stranger_seen_once(album: tuple[Path, AlbumTruth]) -> None:
    truth = album[1]
    names = {person.name for person in truth.people}
    assert len(names) == len(truth.people)
    strangers = [face.stranger_id for photo in truth.photos for face in photo.faces if face.stranger_id]
    assert strangers
    assert len(strangers) == len(set(strangers))
    for photo in truth.photos:
        people = [face.person for face in photo.faces if face.person]
        assert set(people) <= names
        assert len(people) == len(set(people))
        assert all((face.person is None) != (face.stranger_id is None) for face in photo.faces)


def test_written_files_agree_with_the_truth(album: tuple[Path, AlbumTruth]) -> None:
    folder, truth = album
    written = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    assert [photo["asset_id"] for photo in written["photos"]] == [photo.asset_id for photo in truth.photos]
    for photo in truth.photos:
        with Image.open(folder / photo.file) as picture:
            assert picture.size == (photo.width, photo.height)
            taken = picture.getexif().get_ifd(0x8769)[36867]
        assert taken == photo.captured_at[:19].replace("-", ":").replace("T", " ")


def test_a_burst_repeats_the_scene_with_other_faces() -> None:
    sitters = [Sitter("a", draw_identity(SeedSpace.ALBUM, 3, 0), 30.0)]
    first, same, later = (draw_photo(np.random.default_rng(9), sitters, 640, 480, burst=burst) for burst in (0, 0, 1))
    assert np.array_equal(first.image, same.image)
    changed = (first.image.astype(int) - later.image).any(axis=2)
    assert 0 < changed.mean() < 0.5


def test_seed_spaces_share_no_identity() -> None:
    people = [draw_identity(space, 1, number) for space in SeedSpace for number in range(50)]
    assert len({person.texture_seed for person in people}) == len(people)
    assert len({(person.eye_x, person.mouth_y, person.skin) for person in people}) == len(people)


def test_training_crops_are_of_training_people() -> None:
    training, album = (draw_views(space, 1, 0, 2) for space in (SeedSpace.TRAINING, SeedSpace.ALBUM))
    assert training.shape == (2, 112, 112, 3)
    assert not np.array_equal(training, album)
