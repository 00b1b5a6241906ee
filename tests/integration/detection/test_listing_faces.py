"""ListFaces and GetFaceStats: every filter, alone and together, and what a page costs in a larger library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, func, insert, literal, select, text, update

from kith.common.v1 import types_pb2
from kith.detection.v1 import faces_pb2
from services.detection.domain.model import FaceState
from services.detection.repository.faces import FaceFilter, count_faces, list_faces
from shared.db.pagination import read_page_request
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments, changes, persons
from shared.errors import InvalidRequest
from shared.foundation import Foundation
from shared.jobs.convert import to_timestamp
from shared.rpc.channel import translate_errors
from tests.integration.clustering.kit import seed_cluster
from tests.integration.counting import recording_statements
from tests.integration.detection.client import DetectionClient
from tests.integration.library import SeededFaces, random_vectors, seed_faces

# When library.seed_faces has its first photo taken; the others follow a day apart.
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
IGNORED, NOT_A_FACE = faces_pb2.FACE_STATE_IGNORED, faces_pb2.FACE_STATE_NOT_A_FACE


async def assign_by_sql(base: Foundation, face_ids: Sequence[UUID]) -> UUID:
    """A person with these faces, as the persons service would have stored it; many at once."""
    now, person_id, change_id = base.clock.now(), base.ids.new_uuid(), base.ids.new_uuid()
    made = {"library_id": "default", "created_at": now}
    async with base.database.transaction() as tx:
        person = {"person_id": person_id, "name": "Ada", "name_key": "ada", "updated_at": now}
        await tx.execute(insert(persons), {**made, **person})
        change = {"change_id": change_id, "kind": "FACES_ASSIGNED", "actor": "test", "rpc": "test"}
        await tx.execute(
            insert(changes), {**made, **change, "person_ids": [person_id], "face_ids": [], "before": {}, "after": {}}
        )
        given = select(
            faces.c.face_id,
            literal("default"),
            literal(person_id),
            literal("HUMAN"),
            literal(1.0),
            literal(1),
            literal(change_id),
            literal(now),
        ).where(faces.c.face_id == func.any(list(face_ids)))
        columns = ["face_id", "library_id", "person_id", "source", "confidence", "version", "change_id", "assigned_at"]
        await tx.execute(insert(assignments).from_select(columns, given))
    return person_id


@dataclass(frozen=True, slots=True)
class Shelf:
    """Twelve faces, two to a photo: 0..3 a person's, 4..8 a cluster, of which 8 is ignored; 11 is no face."""

    seeded: SeededFaces
    person_id: UUID
    cluster_id: str

    def rows(self, found: Sequence[faces_pb2.Face]) -> list[int]:
        numbers = {str(face_id): row for row, face_id in enumerate(self.seeded.face_ids)}
        return sorted(numbers[face.id] for face in found)


@pytest.fixture
async def shelf(base: Foundation) -> Shelf:
    seeded = await seed_faces(base, random_vectors(12), faces_per_photo=2, qualities=[row / 12 for row in range(12)])
    person_id = await assign_by_sql(base, seeded.face_ids[:4])
    # Face 3 was grouped before it was assigned: its row counts for nothing.
    cluster_id = await seed_cluster(base, seeded.face_ids[3:9])
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == seeded.face_ids[8]).values(state="IGNORED"))
        await tx.execute(update(faces).where(faces.c.face_id == seeded.face_ids[11]).values(state="NOT_A_FACE"))
    return Shelf(seeded, person_id, cluster_id)


async def list_all(detection: DetectionClient, **fields: Any) -> list[faces_pb2.Face]:
    """Every face that passes, in pages of three."""
    found: list[faces_pb2.Face] = []
    token = ""
    while True:
        request = faces_pb2.ListFacesRequest(page_size=3, page_token=token, **fields)
        async with translate_errors("detection"):
            page = await detection.faces.ListFaces(request)
        found += page.faces
        token = page.next_page_token
        if not token:
            return found


def taken(first_day: int, days: int) -> types_pb2.TimeRange:
    start = FIRST + timedelta(days=first_day)
    return types_pb2.TimeRange(start=to_timestamp(start), end=to_timestamp(start + timedelta(days=days)))


async def test_each_filter_alone_and_all_of_them_together(detection: DetectionClient, shelf: Shelf) -> None:
    person_id, photos = str(shelf.person_id), shelf.seeded.asset_ids
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10]),
        ({"asset_id": photos[2]}, [2, 3]),
        ({"asset_id": "nowhere"}, []),
        ({"person_id": person_id}, [0, 1, 2, 3]),
        ({"cluster_id": shelf.cluster_id}, [4, 5, 6, 7]),
        ({"unassigned": True}, [4, 5, 6, 7, 9, 10]),
        ({"min_quality": 0.5}, [6, 7, 9, 10]),
        ({"states": [IGNORED]}, [8]),
        ({"states": [IGNORED, NOT_A_FACE]}, [8, 11]),
        ({"captured": taken(1, 2)}, [2, 3, 4, 5]),
        ({"captured": types_pb2.TimeRange(start=taken(4, 1).start)}, [9, 10]),
        ({"person_id": person_id, "unassigned": True}, []),
        ({"person_id": person_id, "cluster_id": shelf.cluster_id}, []),
        ({"cluster_id": shelf.cluster_id, "states": [IGNORED]}, []),
        ({"cluster_id": shelf.cluster_id, "min_quality": 0.4, "captured": taken(2, 1)}, [5]),
        (
            {
                "asset_id": photos[6],
                "cluster_id": shelf.cluster_id,
                "unassigned": True,
                "min_quality": 0.55,
                "states": [faces_pb2.FACE_STATE_ACTIVE],
                "captured": taken(3, 1),
            },
            [7],
        ),
    ]
    for fields, expected in cases:
        found = await list_all(detection, **fields)
        assert shelf.rows(found) == expected, fields
        assert [face.id for face in found] == sorted(face.id for face in found)
        assert await list_all(detection, library_id="other", **fields) == []


async def test_filters_that_are_none(detection: DetectionClient) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "min_quality": {"min_quality": float("nan")},
        "states[1]": {"states": [IGNORED, 9]},
        "person_id": {"person_id": "x"},
        "cluster_id": {"cluster_id": "x"},
        "page_size": {"page_size": -1},
    }
    for field, fields in wrong.items():
        with pytest.raises(InvalidRequest) as caught:
            async with translate_errors("detection"):
                await detection.faces.ListFaces(faces_pb2.ListFacesRequest(**fields))
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_counts_take_two_statements(detection: DetectionClient, base: Foundation, shelf: Shelf) -> None:
    with recording_statements(base.database) as sent:
        async with base.database.snapshot() as tx:
            counted = await count_faces(tx, "default")
    assert len(sent) == 2
    assert (counted.faces, counted.active, counted.ignored, counted.not_a_face) == (12, 10, 1, 1)
    assert (counted.assigned, counted.clustered, counted.unknown) == (4, 4, 2)
    stats = await detection.faces.GetFaceStats(faces_pb2.GetFaceStatsRequest())
    assert (stats.assets, stats.assets_detected, stats.assigned, stats.clustered) == (6, 6, 4, 4)


async def multiply(base: Foundation, size: int) -> list[UUID]:
    """A library of so many faces, four to a photo, all like one: their ids in order."""
    (like,) = (await seed_faces(base, random_vectors(1, 4), with_collections=False)).face_ids
    columns = {
        "assets": ", ".join(column.name for column in assets.c if column.name != "asset_id"),
        "faces": ", ".join(column.name for column in faces.c if column.name not in {"face_id", "asset_id"}),
    }
    async with base.database.transaction() as tx:
        await tx.execute(
            text(
                f"INSERT INTO assets (asset_id, {columns['assets']}) "
                f"SELECT 'many-' || n / 4, {columns['assets']} FROM assets, generate_series(0, :size - 1, 4) AS n"
            ),
            {"size": size},
        )
        await tx.execute(
            text(
                f"INSERT INTO faces (face_id, asset_id, {columns['faces']}) SELECT gen_random_uuid(), 'many-' || n / 4, "
                f"{columns['faces']} FROM faces, generate_series(0, :size - 1) AS n"
            ),
            {"size": size},
        )
        await tx.execute(
            text(
                "INSERT INTO face_embeddings (face_id, model_version, library_id, embedding, norm) "
                "SELECT faces.face_id, model_version, faces.library_id, embedding, norm FROM faces, face_embeddings "
                "WHERE face_embeddings.face_id = :like AND faces.face_id <> :like"
            ),
            {"like": like},
        )
        rows = await tx.rows(select(faces.c.face_id).where(faces.c.face_id != like).order_by(faces.c.face_id))
    return [row.face_id for row in rows]


@contextmanager
def last_statement(base: Foundation) -> Iterator[list[tuple[str, Any]]]:
    """Statements and their parameters, as they are sent inside the block."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, sql: str, parameters: Any, *_rest: object) -> None:
        sent.append((sql, parameters))

    event.listen(base.database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(base.database.engine.sync_engine, "before_cursor_execute", note)


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from walk(child)


async def test_a_page_of_a_large_library_is_read_by_index(base: Foundation) -> None:
    """Each common filter: no table is read through, and no more rows than a few pages."""
    size = 100_000
    face_ids = await multiply(base, size)
    person_id = await assign_by_sql(base, face_ids[: size // 2])
    small = await assign_by_sql(base, face_ids[size // 2 : size // 2 + 50])
    cluster_id = await seed_cluster(base, face_ids[-60:])
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id.in_(face_ids[-5:])).values(state="NOT_A_FACE"))
        asset_id = await tx.scalar(select(faces.c.asset_id).where(faces.c.face_id == face_ids[100]))
    # Statistics as autovacuum would have made them.
    async with base.database.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("ANALYZE"))
    middle = face_ids[size * 3 // 4]
    cases = {
        "everything": FaceFilter(),
        "asset": FaceFilter(asset_id=asset_id),
        "person": FaceFilter(person_id=person_id),
        "person of few": FaceFilter(person_id=small),
        "cluster": FaceFilter(cluster_id=cluster_id),
        "unassigned": FaceFilter(unassigned=True),
        "put aside": FaceFilter(states=(FaceState.IGNORED, FaceState.NOT_A_FACE)),
    }
    for name, where in cases.items():
        for after in (None, (middle,)):
            page = read_page_request(100, "", default=100, maximum=1000, filters=())
            page = type(page)(page.size, after, page.fingerprint)
            with last_statement(base) as sent:
                async with base.database.transaction() as tx:
                    await list_faces(tx, "default", page, where)
            sql, parameters = sent[-1]
            async with base.database.engine.connect() as connection:
                answer = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters)
                plan = answer.scalar_one()[0]["Plan"]
            for node in walk(plan):
                table = node.get("Relation Name")
                read = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
                if table in {"faces", "assets", "assignments", "cluster_members", "face_embeddings"}:
                    assert node["Node Type"] != "Seq Scan" or read <= 200, (name, after, node)
                    # Unassigned faces behind half a library of assigned ones are the worst case.
                    assert read <= (size * 0.6 if name == "unassigned" and after is None else 1_000), (
                        name,
                        after,
                        node,
                    )
