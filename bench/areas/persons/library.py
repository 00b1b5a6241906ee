"""A library as persons see it: photos with faces, people who have them, clusters nobody has named, and faces to give away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import UUID

import numpy as np
from sqlalchemy import Table, insert, text

from services.persons.domain.naming import make_name_key, make_trigrams
from services.persons.domain.settling import settle_locked
from services.persons.wiring import build_deps
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.db.tables_clustering import cluster_members, cluster_runs, clusters
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_persons import assignments, changes, persons
from shared.faces.embeddings import encode_embedding
from shared.foundation import Foundation

MODEL: Final = "bench_512"
DIMENSION: Final = 512
FACES_PER_PHOTO: Final = 2
MINUTES_BETWEEN_PHOTOS: Final = 95
# Vectors are drawn once and used again; a person has fewer faces than that, or so many that it makes no difference.
DRAWN: Final = 4_000
SETTLED_TOGETHER: Final = 50
_FIRST_PHOTO: Final = datetime(2008, 5, 1, tzinfo=UTC)
_GIVEN: Final = ("Ada", "Bruno", "Chidi", "Dalia", "Emil", "Farah", "Goran", "Hana", "Ines", "Jun", "Kemal", "Lotte")
_FAMILY: Final = ("Abe", "Brandt", "Castro", "Demir", "Eze", "Fontaine", "Gruber", "Horvat", "Ito", "Jensen", "Kaya")


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a library is: faces of each person, members of each unnamed cluster, faces of nobody."""

    persons: Sequence[int]
    clusters: Sequence[int] = ()
    unassigned: int = 0


@dataclass(frozen=True, slots=True)
class SeededLibrary:
    """People, and the faces that nobody has and no cluster holds."""

    library_id: str
    person_ids: list[UUID]
    unassigned: list[UUID]


async def seed_library(base: Foundation, library_id: str, shape: Shape, *, with_points: bool = False) -> SeededLibrary:
    """Store a library by COPY, people settled as the service settles them; the same shape gives the same library but for ids.

    ``with_points`` queues every face for Qdrant.
    """
    random = np.random.default_rng(0)
    people = [base.ids.new_uuid() for _ in shape.persons]
    owned = np.repeat(np.arange(len(people)), shape.persons).tolist()
    grouped = np.repeat(np.arange(len(shape.clusters)), shape.clusters).tolist()
    face_ids = [base.ids.new_uuid() for _ in range(len(owned) + len(grouped) + shape.unassigned)]
    first_grouped, first_free = len(owned), len(owned) + len(grouped)
    async with base.database.transaction() as tx:
        writer = _Writer(tx, library_id, base.clock.now())
        await writer.write_photos(face_ids, random)
        await writer.write_people(people, random)
        await writer.write_assignments(base.ids.new_uuid(), face_ids, [people[person] for person in owned])
        await writer.write_clusters(base.ids.new_uuid(), face_ids[first_grouped:first_free], grouped)
    for start in range(0, len(people), SETTLED_TOGETHER):
        async with base.database.transaction() as tx:
            await settle_locked(tx, build_deps(base), library_id, people[start : start + SETTLED_TOGETHER])
    if with_points:
        async with base.database.transaction() as tx:
            await queue_faces(tx, base.clock, library_id, face_ids)
    # What the planner knows of tables that were filled a moment ago would be chance.
    async with base.database.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("VACUUM ANALYZE"))
    return SeededLibrary(library_id, people, face_ids[first_free:])


class _Writer:
    """Rows of one library, written at one moment."""

    def __init__(self, tx: Transaction, library_id: str, now: datetime) -> None:
        self._tx = tx
        self._library_id = library_id
        self._now = now

    async def write_photos(self, face_ids: Sequence[UUID], random: np.random.Generator) -> None:
        """Faces in random order, two to a photo, with quality and vector."""
        names = [f"{self._library_id}-{photo:07d}" for photo in range(-(-len(face_ids) // FACES_PER_PHOTO))]
        hashes = random.integers(-(2**63), 2**63, len(names)).tolist()
        places = random.permutation(len(face_ids)).tolist()
        qualities = random.uniform(0.2, 1.0, len(face_ids)).tolist()
        drawn = random.standard_normal((DRAWN, DIMENSION), dtype=np.float32)
        vectors = [encode_embedding(vector) for vector in drawn / np.linalg.norm(drawn, axis=1, keepdims=True)]
        model = {"model_version": MODEL, "pack": "bench", "dimension": DIMENSION, "state": "ACTIVE"}
        await self._tx.execute(insert(models), {"library_id": self._library_id, **model, "created_at": self._now})
        await self._copy(assets, (self._photo(*numbered) for numbered in enumerate(zip(names, hashes, strict=True))))
        await self._copy(
            faces,
            (
                self._face(face_id, names[place // FACES_PER_PHOTO], place % FACES_PER_PHOTO, quality)
                for face_id, place, quality in zip(face_ids, places, qualities, strict=True)
            ),
        )
        await self._copy(
            face_embeddings,
            (
                {"face_id": face_id, "model_version": MODEL, "embedding": vectors[number % DRAWN], "norm": 20.0}
                for number, face_id in enumerate(face_ids)
            ),
        )

    def _photo(self, number: int, named: tuple[str, int]) -> dict[str, Any]:
        name, difference_hash = named
        return {
            "asset_id": name,
            "uri": f"file:///photos/{name}.jpg",
            "captured_at": _FIRST_PHOTO + timedelta(minutes=MINUTES_BETWEEN_PHOTOS * number),
            "captured_precision": "SECOND",
            "captured_source": "EXIF",
            "width": 4000,
            "height": 3000,
            "difference_hash": difference_hash,
            "detection": "FACES",
            "face_count": FACES_PER_PHOTO,
            "created_at": self._now,
            "updated_at": self._now,
        }

    def _face(self, face_id: UUID, asset_id: str, place: int, quality: float) -> dict[str, Any]:
        return {
            "face_id": face_id,
            "asset_id": asset_id,
            "box_x": 900.0 * place,
            "box_y": 700.0,
            "box_width": 380.0,
            "box_height": 460.0,
            "landmarks": [0.0] * 10,
            "confidence": 0.9,
            "quality": quality,
            "quality_size": quality,
            "quality_sharpness": quality,
            "quality_pose": quality,
            "yaw": 4.0,
            "pitch": -2.0,
            "roll": 1.0,
            "origin": "DETECTED",
            "created_at": self._now,
            "updated_at": self._now,
        }

    async def write_people(self, person_ids: Sequence[UUID], random: np.random.Generator) -> None:
        """Everybody is called something; one in three has a birth date, one in ten notes."""
        years = random.integers(1940, 2020, len(person_ids)).tolist()
        await self._copy(
            persons,
            (self._person(number, person_id, years[number]) for number, person_id in enumerate(person_ids)),
        )

    def _person(self, number: int, person_id: UUID, year: int) -> dict[str, Any]:
        given, family = number % len(_GIVEN), number // len(_GIVEN) % len(_FAMILY)
        name = f"{_GIVEN[given]} {_FAMILY[family]} {number:04d}"
        born = number % 3 == 0
        return {
            "person_id": person_id,
            "name": name,
            "name_key": make_name_key(name),
            "name_trigrams": make_trigrams(make_name_key(name)),
            "birth_year": year if born else None,
            "birth_month": 1 + number % 12 if born else None,
            "birth_day": 1 + number % 28 if born else None,
            "notes": "Met at the summer party." if number % 10 == 0 else "",
            "created_at": self._now,
            "updated_at": self._now,
        }

    async def write_assignments(self, change_id: UUID, face_ids: Sequence[UUID], owners: Sequence[UUID]) -> None:
        """The first faces go to ``owners``, by one change."""
        change = {"change_id": change_id, "kind": "FACES_ASSIGNED", "actor": "bench", "rpc": "bench"}
        touched = {"person_ids": [], "face_ids": [], "before": "{}", "after": "{}", "created_at": self._now}
        await self._copy(changes, [change | touched])
        given = {"source": "HUMAN", "confidence": 1.0, "version": 1, "change_id": change_id, "assigned_at": self._now}
        await self._copy(
            assignments,
            (
                {"face_id": face_id, "person_id": owner, **given}
                for face_id, owner in zip(face_ids, owners, strict=False)
            ),
        )

    async def write_clusters(self, run_id: UUID, face_ids: Sequence[UUID], grouped: Sequence[int]) -> None:
        """``grouped`` is the cluster of each face."""
        if not grouped:
            return
        sizes = np.bincount(grouped).tolist()
        names = [f"clu_{number:012x}" for number in range(len(sizes))]
        covers = dict(zip(grouped, face_ids, strict=True))
        run = {"run_id": run_id, "job_id": run_id, "mode": "UNASSIGNED", "algorithm": "FOREST", "model_version": MODEL}
        counts = {"faces": len(face_ids), "clusters": len(sizes), "clustered": len(face_ids), "noise": 0, "kept": 0}
        await self._copy(cluster_runs, [run | counts | {"thresholds": "{}", "seconds": "{}", "created_at": self._now}])
        made = {
            "model_version": MODEL,
            "cohesion": 0.7,
            "run_id": run_id,
            "created_at": self._now,
            "updated_at": self._now,
        }
        await self._copy(
            clusters,
            (
                {
                    "cluster_id": name,
                    "number": number + 1,
                    "face_count": sizes[number],
                    "cover_face_id": covers[number],
                    **made,
                }
                for number, name in enumerate(names)
            ),
        )
        await self._copy(
            cluster_members,
            (
                {"face_id": face_id, "cluster_id": names[cluster], "confidence": 0.7}
                for face_id, cluster in zip(face_ids, grouped, strict=True)
            ),
        )

    async def _copy(self, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows that all have the same columns, besides that of the library, which every table has."""
        ahead = iter(rows)
        first = next(ahead)
        await self._tx.copy(
            table.name,
            ("library_id", *first),
            ((self._library_id, *row.values()) for row in chain([first], ahead)),
        )
