"""IGNORED and NOT_A_FACE: what they hide, that they last, and that they can be taken back; over real gRPC."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import select

from kith.detection.v1 import faces_pb2
from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc, persons_pb2, persons_pb2_grpc
from services.persons.server import start as start_persons
from shared.db.tables_detection import faces as face_table
from shared.db.tables_shared import vector_outbox
from shared.errors import InvalidRequest, KithError, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.known import get_face, look, look_at_album, relay, set_state

ACTIVE, IGNORED = faces_pb2.FACE_STATE_ACTIVE, faces_pb2.FACE_STATE_IGNORED
NOT_A_FACE = faces_pb2.FACE_STATE_NOT_A_FACE


@pytest.fixture
async def known(
    detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack, album: Album
) -> list[faces_pb2.Face]:
    """Faces of photos that were looked at."""
    return await look_at_album(detection, running, base, stack, album, 4)


async def test_a_state_hides_a_face_everywhere_and_is_taken_back(
    known: list[faces_pb2.Face], detection: DetectionClient, base: Foundation
) -> None:
    face, other, *rest = known
    before = await detection.faces.GetFaceStats(faces_pb2.GetFaceStatsRequest())
    ignored = await set_state(detection, face.id, IGNORED)
    assert ignored.state == IGNORED
    ignored.state = ACTIVE
    assert ignored == face
    await set_state(detection, other.id, NOT_A_FACE)
    assert await detection.list_faces() == rest
    request = faces_pb2.ListFacesRequest(states=[IGNORED, NOT_A_FACE])
    assert [each.id for each in (await detection.faces.ListFaces(request)).faces] == [face.id, other.id]
    stats = await detection.faces.GetFaceStats(faces_pb2.GetFaceStatsRequest())
    assert (stats.faces, stats.active, stats.ignored, stats.not_a_face) == (before.faces, before.active - 2, 1, 1)
    assert stats.unknown == before.unknown - 2

    await relay(base)
    (point,) = await base.qdrant.retrieve(base.collections.faces(face.model_version), [face.id], with_payload=True)
    assert point.payload is not None
    assert point.payload["state"] == "IGNORED"
    assert (await detection.check()).consistent

    for hidden in (face, other):
        assert await set_state(detection, hidden.id, ACTIVE) == hidden
    assert await detection.list_faces() == known
    assert await detection.faces.GetFaceStats(faces_pb2.GetFaceStatsRequest()) == before
    await relay(base)
    assert (await detection.check()).consistent


async def test_redetection_remembers_what_was_said(
    known: list[faces_pb2.Face], detection: DetectionClient, running: Running, base: Foundation, stack: AsyncExitStack
) -> None:
    await set_state(detection, known[0].id, IGNORED)
    await set_state(detection, known[1].id, NOT_A_FACE)
    session = await look(detection, running, base, stack, redetect=True)
    assert (session.faces_added, session.faces_kept, session.faces_gone) == (0, len(known), 0)
    assert (await get_face(detection, known[0].id)).state == IGNORED
    assert (await get_face(detection, known[1].id)).state == NOT_A_FACE
    assert await detection.list_faces() == known[2:]


async def test_the_same_state_again_writes_nothing(
    known: list[faces_pb2.Face], detection: DetectionClient, base: Foundation
) -> None:
    async with base.database.transaction() as tx:
        before = await tx.scalar(select(face_table.c.updated_at).where(face_table.c.face_id == UUID(known[0].id)))
    assert await set_state(detection, known[0].id, ACTIVE) == known[0]
    async with base.database.transaction() as tx:
        assert (
            await tx.scalar(select(face_table.c.updated_at).where(face_table.c.face_id == UUID(known[0].id))) == before
        )
        assert await tx.rows(select(vector_outbox)) == []


async def test_what_a_mask_may_say(known: list[faces_pb2.Face], detection: DetectionClient) -> None:
    face = faces_pb2.Face(id=known[0].id, state=IGNORED)
    unknown = faces_pb2.FaceState.ValueType(9)
    wrong = {
        "update_mask": [
            faces_pb2.UpdateFaceRequest(face=face),
            faces_pb2.UpdateFaceRequest(face=face, update_mask=FieldMask(paths=["state", "box"])),
            faces_pb2.UpdateFaceRequest(face=face, update_mask=FieldMask(paths=["*"])),
        ],
        "face.state": [
            faces_pb2.UpdateFaceRequest(face=faces_pb2.Face(id=face.id), update_mask=FieldMask(paths=["state"])),
            faces_pb2.UpdateFaceRequest(
                face=faces_pb2.Face(id=face.id, state=unknown), update_mask=FieldMask(paths=["state"])
            ),
        ],
        "face.id": [
            faces_pb2.UpdateFaceRequest(face=faces_pb2.Face(state=IGNORED), update_mask=FieldMask(paths=["state"]))
        ],
    }
    for field, requests in wrong.items():
        for request in requests:
            with pytest.raises(InvalidRequest) as caught:
                async with translate_errors("detection"):
                    await detection.faces.UpdateFace(request)
            assert [violation.field for violation in caught.value.violations] == [field]
    with pytest.raises(NotFound, match="face"):
        await set_state(detection, str(uuid4()), IGNORED)
    assert await detection.list_faces() == known


async def test_an_assigned_face_is_unassigned_first(
    known: list[faces_pb2.Face], detection: DetectionClient, running: Running
) -> None:
    channel = await running.server("persons", start_persons)
    people = persons_pb2_grpc.PersonServiceStub(channel)
    assignments = assignments_pb2_grpc.AssignmentServiceStub(channel)
    created = await people.CreatePerson(persons_pb2.CreatePersonRequest(person=persons_pb2.Person(name="Ada")))
    assign = assignments_pb2.AssignFaceRequest(face_id=known[0].id, person_id=created.person.id)
    answer = await assignments.AssignFace(assign)
    for state in (IGNORED, NOT_A_FACE):
        with pytest.raises(PreconditionFailed, match="unassign it first") as caught:
            await set_state(detection, known[0].id, state)
        assert caught.value.reason is Reason.FACE_ALREADY_ASSIGNED
        assert caught.value.metadata == {
            "face_id": known[0].id,
            "person_id": created.person.id,
            "etag": answer.assignment.etag,
        }
    await assignments.UnassignFace(assignments_pb2.UnassignFaceRequest(face_id=known[0].id))
    await set_state(detection, known[0].id, NOT_A_FACE)
    with pytest.raises(PreconditionFailed) as caught:
        async with translate_errors("persons"):
            await assignments.AssignFace(assign)
    assert caught.value.reason is Reason.FACE_NOT_ACTIVE

    async def race(face: faces_pb2.Face) -> list[object]:
        async def give() -> None:
            request = assignments_pb2.AssignFaceRequest(face_id=face.id, person_id=created.person.id)
            async with translate_errors("persons"):
                await assignments.AssignFace(request)

        return list(await asyncio.gather(give(), set_state(detection, face.id, IGNORED), return_exceptions=True))

    for face in known[1:]:
        outcome = await race(face)
        lost = [each for each in outcome if isinstance(each, KithError)]
        assert len(lost) == 1, outcome
        now = await get_face(detection, face.id)
        assert (now.state == IGNORED) != bool(now.person_id)
