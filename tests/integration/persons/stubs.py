"""The persons server's stubs, and the calls that most tests of assignments make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import grpc.aio

from kith.common.v1 import types_pb2
from kith.persons.v1 import (
    assignments_pb2,
    assignments_pb2_grpc,
    changes_pb2,
    changes_pb2_grpc,
    persons_pb2,
    persons_pb2_grpc,
)
from shared.rpc.channel import translate_errors

HUMAN = assignments_pb2.ASSIGNMENT_SOURCE_HUMAN
MACHINE = assignments_pb2.ASSIGNMENT_SOURCE_MACHINE


class PersonsStubs:
    """Calls the persons server; what it refuses is raised as the error of ours that it is."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.people = persons_pb2_grpc.PersonServiceStub(channel)
        self.assignments = assignments_pb2_grpc.AssignmentServiceStub(channel)
        self.changes = changes_pb2_grpc.ChangeServiceStub(channel)

    async def create(self, name: str, face_ids: Sequence[UUID] = (), birth: types_pb2.Date | None = None) -> str:
        """A new person with these faces; returns the id."""
        request = persons_pb2.CreatePersonRequest(person=persons_pb2.Person(name=name, birth_date=birth))
        person_id = (await self.people.CreatePerson(request)).person.id
        if face_ids:
            await self.assign_all(face_ids, person_id)
        return person_id

    async def get(self, person_id: str) -> persons_pb2.Person:
        """A person, deleted or not."""
        request = persons_pb2.GetPersonRequest(person_id=person_id, show_deleted=True)
        return (await self.people.GetPerson(request)).person

    async def delete(self, person_id: str) -> None:
        """Put a person away."""
        etag = (await self.get(person_id)).etag
        await self.people.DeletePerson(persons_pb2.DeletePersonRequest(person_id=person_id, etag=etag))

    async def merge(self, merged_id: str, survivor_id: str) -> str:
        """Make one person part of another; returns the change's id."""
        survivor, merged = await self.get(survivor_id), await self.get(merged_id)
        request = persons_pb2.MergePersonsRequest(
            survivor_id=survivor_id, survivor_etag=survivor.etag, merged_id=merged_id, merged_etag=merged.etag
        )
        async with translate_errors("persons"):
            return (await self.people.MergePersons(request)).change_id

    async def assign(
        self, face_id: UUID, person_id: str, source: assignments_pb2.AssignmentSource.ValueType = HUMAN, etag: str = ""
    ) -> assignments_pb2.AssignFaceResponse:
        """Give a face to a person."""
        request = assignments_pb2.AssignFaceRequest(
            face_id=str(face_id), person_id=person_id, source=source, confidence=0.75, etag=etag
        )
        async with translate_errors("persons"):
            return await self.assignments.AssignFace(request)

    async def assign_all(
        self, face_ids: Sequence[UUID], person_id: str, **fields: Any
    ) -> assignments_pb2.BatchAssignFacesResponse:
        """Give faces to a person."""
        names = [str(face_id) for face_id in face_ids]
        request = assignments_pb2.BatchAssignFacesRequest(
            face_ids=names, person_id=person_id, confidence=0.75, **fields
        )
        async with translate_errors("persons"):
            return await self.assignments.BatchAssignFaces(request)

    async def unassign(self, face_id: UUID, *, exclude: bool = False) -> str:
        """Take a face from its person; returns the change's id."""
        request = assignments_pb2.UnassignFaceRequest(face_id=str(face_id), exclude=exclude)
        async with translate_errors("persons"):
            return (await self.assignments.UnassignFace(request)).change_id

    async def exclude(self, face_id: UUID, person_id: str) -> str:
        """Say that a face is not a person; returns the exclusion's id."""
        request = assignments_pb2.ExcludeFaceRequest(face_id=str(face_id), person_id=person_id)
        async with translate_errors("persons"):
            return (await self.assignments.ExcludeFace(request)).exclusion.id

    async def read_change(self, change_id: str) -> changes_pb2.Change:
        """One change."""
        return (await self.changes.GetChange(changes_pb2.GetChangeRequest(change_id=change_id))).change

    async def undo(self, change_id: str) -> changes_pb2.UndoChangeResponse:
        """Take a change back."""
        async with translate_errors("persons"):
            return await self.changes.UndoChange(changes_pb2.UndoChangeRequest(change_id=change_id))
