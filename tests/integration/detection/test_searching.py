"""SearchFaces over real gRPC, PostgreSQL and Qdrant: right faces, right order, never two models at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import cv2
import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update

from kith.common.v1 import types_pb2
from kith.detection.v1 import faces_pb2
from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc, persons_pb2, persons_pb2_grpc
from services.detection.adapters.similar import IndexedFaceSearch
from services.detection.domain.searching import Looking, SearchFaces, search_faces
from services.detection.inference.faces import ModelInfo
from services.persons.server import start as start_persons
from shared.db.tables_detection import faces as face_table
from shared.db.tables_detection import models
from shared.errors import InvalidRequest, KithError, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from shared.vectors.faces import FaceIndex
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.known import look_at_album, read_vectors, relay, set_state

EVERYTHING = -1.0


async def search(detection: DetectionClient, **fields: Any) -> list[faces_pb2.FaceMatch]:
    async with translate_errors("detection"):
        return list((await detection.faces.SearchFaces(faces_pb2.SearchFacesRequest(**fields))).matches)


def ids(matches: Sequence[faces_pb2.FaceMatch]) -> list[str]:
    return [match.face.id for match in matches]


@pytest.fixture
async def known(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> list[faces_pb2.Face]:
    """Faces of photos that were looked at, in Qdrant too."""
    return await look_at_album(detection, running, base, stack, album, 8)


async def test_a_stored_face_finds_its_like_in_order(
    known: list[faces_pb2.Face], detection: DetectionClient, pack: ModelInfo
) -> None:
    vectors = await read_vectors(detection, [face.id for face in known])
    for asked in range(3):
        cosines = vectors @ vectors[asked]
        order = [row for row in np.argsort(-cosines) if row != asked]
        found = await search(detection, face_id=known[asked].id, min_cosine=EVERYTHING, limit=200)
        # Qdrant's own rounding may swap two that are equally near.
        assert [match.cosine for match in found] == pytest.approx(cosines[order], abs=2e-3)
        assert set(ids(found)) == {known[row].id for row in order}
        assert found[0].face == known[order[0]]
        usual = await search(detection, face_id=known[asked].id, limit=200)
        floor = pack.thresholds["suggest_floor"]
        assert ids(usual) == [match.face.id for match in found if match.cosine >= floor]
        assert len(await search(detection, face_id=known[asked].id, min_cosine=EVERYTHING, limit=2)) == 2
    assert len(known) > 21
    assert len(await search(detection, face_id=known[0].id, min_cosine=EVERYTHING)) == 20


async def test_an_image_and_an_embedding_find_the_face_they_show(
    known: list[faces_pb2.Face], detection: DetectionClient, album: Album, pack: ModelInfo
) -> None:
    shown = [face for face in known if face.asset_id == "photo-1"]
    largest = max(shown, key=lambda face: face.box.width * face.box.height)
    by_uri = await search(detection, image=types_pb2.Image(uri=album.uri(1)), limit=3)
    by_bytes = await search(detection, image=types_pb2.Image(content=album.path(1).read_bytes()), limit=3)
    assert by_uri == by_bytes
    assert by_uri[0].face == largest
    assert by_uri[0].cosine > 0.999
    (vector,) = await read_vectors(detection, [largest.id])
    # A vector need not come as a unit vector.
    given = types_pb2.Embedding(model_version=pack.version, values=(5 * vector).tolist())
    by_vector = await search(detection, embedding=given, limit=3)
    assert ids(by_vector) == ids(by_uri)
    assert by_vector[0].cosine == pytest.approx(1, abs=2e-3)


async def test_filters_hold_in_truth_not_only_in_the_index(
    known: list[faces_pb2.Face], detection: DetectionClient, running: Running, base: Foundation
) -> None:
    channel = await running.server("persons", start_persons)
    people = persons_pb2_grpc.PersonServiceStub(channel)
    assignments = assignments_pb2_grpc.AssignmentServiceStub(channel)
    created = await people.CreatePerson(persons_pb2.CreatePersonRequest(person=persons_pb2.Person(name="Ada")))
    asked, *others = known
    mine = [face.id for face in others[:3]]
    given = assignments_pb2.BatchAssignFacesRequest(face_ids=mine, person_id=created.person.id)
    await assignments.BatchAssignFaces(given)
    every = {"face_id": asked.id, "min_cosine": EVERYTHING, "limit": 200}

    async def check() -> None:
        free = await search(detection, unassigned=True, **every)
        assert not set(ids(free)) & set(mine)
        assert all(not match.face.person_id for match in free)
        assert len(await search(detection, unassigned=True, person_id=created.person.id, **every)) == 0

    # Before the relay has told Qdrant, and after.
    await check()
    await relay(base)
    await check()
    assert set(ids(await search(detection, person_id=created.person.id, **every))) == set(mine)
    assert len(await search(detection, unassigned=True, **every)) == len(others) - 3

    gone, hidden = UUID(others[3].id), others[4].id
    async with base.database.transaction() as tx:
        await tx.execute(delete(face_table).where(face_table.c.face_id == gone))
    await set_state(detection, hidden, faces_pb2.FACE_STATE_IGNORED)
    left = ids(await search(detection, **every))
    assert str(gone) not in left
    assert hidden not in left
    assert len(left) == len(others) - 2
    # A face that is put aside may still be asked for.
    assert asked.id in ids(await search(detection, face_id=hidden, min_cosine=EVERYTHING, limit=200))


async def test_a_search_costs_the_same_for_any_number_of_matches(known: list[faces_pb2.Face], base: Foundation) -> None:
    index = IndexedFaceSearch(FaceIndex(base.qdrant, base.collections))
    # A stored face is looked for without looking at any photo.
    looking = Looking(None, None, "", None)  # type: ignore[arg-type]
    counts = []
    for limit in (1, 200):
        command = SearchFaces("default", UUID(known[0].id), limit, EVERYTHING, unassigned=False, person_id=None)
        with recording_statements(base.database) as sent:
            found = await search_faces(base.database, index, looking, command)
        assert len(found) == min(limit, len(known) - 1)
        counts.append(len(sent))
    assert counts[0] == counts[1] <= 4


async def test_what_cannot_be_looked_for(
    known: list[faces_pb2.Face], detection: DetectionClient, pack: ModelInfo, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((200, 200, 3), 128, np.uint8))
    flat = [0.0] * pack.dimension
    nan = [float("nan"), *flat[1:]]
    version = pack.version
    wrong: dict[str, dict[str, Any]] = {
        "query": {},
        "image": {"image": types_pb2.Image(uri=empty.as_uri())},
        "limit": {"face_id": known[0].id, "limit": -1},
        "min_cosine": {"face_id": known[0].id, "min_cosine": float("nan")},
        "face_id": {"face_id": "no id"},
        "person_id": {"face_id": known[0].id, "person_id": "nobody"},
        "embedding.values": {"embedding": types_pb2.Embedding(model_version=version, values=flat)},
    }
    for field, fields in wrong.items():
        with pytest.raises(InvalidRequest) as caught:
            await search(detection, **fields)
        assert [violation.field for violation in caught.value.violations] == [field]
    with pytest.raises(InvalidRequest, match="NaN"):
        await search(detection, embedding=types_pb2.Embedding(model_version=version, values=nan))
    with pytest.raises(NotFound, match="face"):
        await search(detection, face_id=str(uuid4()))
    with pytest.raises(NotFound, match="face"):
        # Of another library, which has a model of its own or none: nothing of this one shows.
        await search(detection, face_id=known[0].id, library_id="other")


async def test_vectors_of_two_models_never_meet(
    known: list[faces_pb2.Face], detection: DetectionClient, base: Foundation, album: Album, pack: ModelInfo
) -> None:
    other = types_pb2.Embedding(model_version="another_model", values=[1.0] * pack.dimension)
    short = types_pb2.Embedding(model_version=pack.version, values=[1.0] * (pack.dimension - 1))

    async def mismatch(**fields: Any) -> dict[str, str]:
        with pytest.raises(KithError) as caught:
            await search(detection, **fields)
        assert caught.value.reason is Reason.MODEL_MISMATCH
        assert isinstance(caught.value, PreconditionFailed)
        return caught.value.metadata

    assert await mismatch(embedding=other) == {"expected": pack.version, "actual": "another_model"}
    assert await mismatch(embedding=short) == {"expected": str(pack.dimension), "actual": str(pack.dimension - 1)}
    async with base.database.transaction() as tx:
        (row,) = await tx.rows(select(models))
        await tx.execute(update(models).values(state="RETIRED"))
        await tx.execute(insert(models), {**row._mapping, "model_version": "another_model", "state": "ACTIVE"})
    seen = {"expected": "another_model", "actual": pack.version}
    assert await mismatch(image=types_pb2.Image(uri=album.uri(0))) == seen
    assert await mismatch(face_id=known[0].id) == {"expected": "another_model", "actual": ""}


async def test_a_library_without_a_model_has_no_face(detection: DetectionClient, album: Album) -> None:
    assert await search(detection, image=types_pb2.Image(uri=album.uri(0))) == []
