"""A whole library of drawn photos, with the truth beside it: what the demo runs on and measures against.

Everything follows from the seed: who the people are, when they meet, what each photo shows. Photos are drawn in
spawned processes; each is seeded by its own number, so the result does not depend on how many there are.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from demo.drawing.identity import SeedSpace, draw_identity
from demo.drawing.names import name_person
from demo.drawing.photo import Sitter, draw_photo

_FIRST_STRANGER = 100_000
"""Identity numbers from here on are strangers; people of the album have the numbers from 0."""
_STRANGER_SHARE = 0.14
_EXIF_ORIGINAL = 36867
_EXIF_IFD = 0x8769
_SIZES = ((1280, 960), (1024, 768), (960, 1280), (1280, 960))


@dataclass(frozen=True, slots=True)
class AlbumFace:
    """One face of a photo. Exactly one of `person` (a name) and `stranger_id` is set. `box` is (x, y, width, height)
    and `landmarks` are five (x, y) in InsightFace's order, pixels of the upright photo; `size` is the box height."""

    person: str | None
    stranger_id: str | None
    box: tuple[float, ...]
    landmarks: tuple[tuple[float, ...], ...]
    occluded: bool
    blur: float
    size: float


@dataclass(frozen=True, slots=True)
class AlbumPhoto:
    """One photo: `file` is relative to the album's folder, `captured_at` is ISO 8601 in UTC."""

    asset_id: str
    file: str
    captured_at: str
    width: int
    height: int
    faces: tuple[AlbumFace, ...]


@dataclass(frozen=True, slots=True)
class AlbumPerson:
    """Somebody the album's owner knows; `birth_date` is ISO 8601."""

    name: str
    birth_date: str


@dataclass(frozen=True, slots=True)
class AlbumTruth:
    """All that is true of an album; the same as its `truth.json`."""

    photos: tuple[AlbumPhoto, ...]
    people: tuple[AlbumPerson, ...]


@dataclass(frozen=True, slots=True)
class _Guest:
    """A sitter as planned: who (an identity number), under which name, and how old."""

    number: int
    person: str | None
    age: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one photo will show. `scene` seeds the scene: photos of one burst share it."""

    number: int
    scene: int
    burst: int
    captured_at: datetime
    guests: tuple[_Guest, ...]


def _plan_people(rng: np.random.Generator, space: SeedSpace, seed: int, people: int) -> list[AlbumPerson]:
    planned = []
    for number in range(people):
        feminine = draw_identity(space, seed, number).feminine
        born = date(2018, 1, 1) - timedelta(days=float(rng.uniform(14, 72)) * 365.25)
        planned.append(AlbumPerson(name_person(number, feminine, seed), born.isoformat()))
    return planned


def _plan_photos(rng: np.random.Generator, people: list[AlbumPerson], photos: int) -> list[_Plan]:
    """Gatherings over eight years: each has its own guests, a few photos, and now and then a burst."""
    born = [date.fromisoformat(person.birth_date) for person in people]
    plans: list[_Plan] = []
    strangers = 0
    while len(plans) < photos:
        when = datetime(2016, 3, 1, 9, tzinfo=UTC) + timedelta(days=int(rng.integers(0, 8 * 365)))
        circle = rng.choice(len(people), size=min(len(people), int(rng.integers(3, 9))), replace=False)
        for _ in range(int(rng.integers(2, 7))):
            when += timedelta(minutes=float(rng.uniform(2, 90)))
            count = int(rng.choice((1, 2, 3, 4, 5, 6), p=(0.34, 0.26, 0.18, 0.11, 0.07, 0.04)))
            members = rng.permutation(circle)[:count]
            age = [(when.date() - born[number]).days / 365.25 for number in members]
            guests = [
                _Guest(int(number), people[number].name, years) for number, years in zip(members, age, strict=True)
            ]
            repeats = int(rng.integers(2, 4)) if rng.random() < 0.06 else 1
            if repeats == 1 and len(guests) < 6 and rng.random() < 2.2 * _STRANGER_SHARE:
                guests.append(_Guest(_FIRST_STRANGER + strangers, None, float(rng.uniform(15, 75))))
                strangers += 1
            scene = int(rng.integers(2**31))
            for burst in range(repeats):
                moment = when.replace(microsecond=0) + timedelta(seconds=2 * burst)
                plans.append(_Plan(len(plans), scene, burst, moment, tuple(guests)))
    return plans[:photos]


def _write_photo(space: SeedSpace, seed: int, plan: _Plan, out: Path) -> AlbumPhoto:
    """Draws and writes one photo; runs in a pool process."""
    rng = np.random.default_rng(np.random.SeedSequence([int(space), seed, plan.scene]))
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    sitters = [Sitter(str(guest.number), draw_identity(space, seed, guest.number), guest.age) for guest in plan.guests]
    quality = int(rng.integers(72, 95))
    photo = draw_photo(rng, sitters, width, height, burst=plan.burst)
    file = f"photo-{plan.number:04d}.jpg"
    picture = Image.fromarray(np.ascontiguousarray(photo.image[:, :, ::-1]))
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_EXIF_ORIGINAL] = plan.captured_at.strftime("%Y:%m:%d %H:%M:%S")
    picture.save(out / file, quality=quality, exif=exif)
    names = {str(guest.number): guest.person for guest in plan.guests}
    faces = tuple(
        AlbumFace(
            person=names[face.key],
            stranger_id=None if names[face.key] else f"stranger-{int(face.key) - _FIRST_STRANGER:03d}",
            box=tuple(round(float(value), 2) for value in face.box),
            landmarks=tuple((round(float(x), 2), round(float(y), 2)) for x, y in face.landmarks),
            occluded=face.occluded,
            blur=round(face.blur, 2),
            size=round(float(face.box[3]), 2),
        )
        for face in photo.faces
    )
    asset_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"kith:drawn-album/{space.name.lower()}/{seed}/{plan.number}"))
    captured = plan.captured_at.isoformat().replace("+00:00", "Z")
    return AlbumPhoto(asset_id, file, captured, width, height, faces)


def draw_album(
    seed: int,
    people: int = 24,
    photos: int = 240,
    out: Path = Path("album"),
    *,
    workers: int | None = None,
    space: SeedSpace = SeedSpace.ALBUM,
) -> AlbumTruth:
    """Draws a library into the folder `out` (made if missing): JPEGs with EXIF dates, and `truth.json`.

    The same seed, people and photos give the same files whatever `workers` is (default: one per core; with 1 nothing
    is spawned). Strangers are in one photo each. Photos hold one to six faces of 36 to 300 pixels. Only fitting the
    pack's thresholds draws from another seed space.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(np.random.SeedSequence([int(space), seed]))
    known = _plan_people(rng, space, seed, people)
    plans = _plan_photos(rng, known, photos)
    count = workers or os.cpu_count() or 1
    arguments = ([space] * len(plans), [seed] * len(plans), plans, [out] * len(plans))
    if count == 1:
        drawn = list(map(_write_photo, *arguments))
    else:
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
            drawn = list(pool.map(_write_photo, *arguments, chunksize=8))
    truth = AlbumTruth(tuple(drawn), tuple(known))
    (out / "truth.json").write_text(json.dumps(asdict(truth), indent=1) + "\n", encoding="utf-8")
    return truth
