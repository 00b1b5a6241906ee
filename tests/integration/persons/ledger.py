"""What tests of the ledger share: the stubs, short words for calls, and the whole state of a library to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import grpc
from sqlalchemy import select

from kith.persons.v1 import (
    assignments_pb2,
    assignments_pb2_grpc,
    changes_pb2,
    changes_pb2_grpc,
    persons_pb2,
    persons_pb2_grpc,
    prototypes_pb2_grpc,
)
from shared.db.tables_persons import assignments, exclusions, persons, prototypes
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors

HUMAN = assignments_pb2.ASSIGNMENT_SOURCE_HUMAN
MACHINE = assignments_pb2.ASSIGNMENT_SOURCE_MACHINE


class Ledger:
    """The persons server, in a test's words. Errors are Kith's own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.people = persons_pb2_grpc.PersonServiceStub(channel)
        self.assignments = assignments_pb2_grpc.AssignmentServiceStub(channel)
        self.prototypes = prototypes_pb2_grpc.PrototypeServiceStub(channel)
        self.changes = changes_pb2_grpc.ChangeServiceStub(channel)

    async def create(self, name: str, **fields: Any) -> persons_pb2.CreatePersonResponse:
        request = persons_pb2.CreatePersonRequest(
            person=persons_pb2.Person(name=name, **fields), request_id=str(uuid4())
        )
        return await self.people.CreatePerson(request)

    async def get(self, person_id: str, *, deleted: bool = True) -> persons_pb2.Person:
        async with translate_errors("persons"):
            request = persons_pb2.GetPersonRequest(person_id=person_id, show_deleted=deleted)
            return (await self.people.GetPerson(request)).person

    async def assign(
        self, face_ids: Sequence[object], person_id: str, source: assignments_pb2.AssignmentSource.ValueType = HUMAN
    ) -> assignments_pb2.BatchAssignFacesResponse:
        request = assignments_pb2.BatchAssignFacesRequest(
            face_ids=[str(face_id) for face_id in face_ids], person_id=person_id, source=source, confidence=0.9
        )
        async with translate_errors("persons"):
            return await self.assignments.BatchAssignFaces(request)

    async def unassign(self, face_id: object, *, exclude: bool = False) -> assignments_pb2.UnassignFaceResponse:
        async with translate_errors("persons"):
            return await self.assignments.UnassignFace(
                assignments_pb2.UnassignFaceRequest(face_id=str(face_id), exclude=exclude)
            )

    async def exclude(self, face_id: object, person_id: str) -> assignments_pb2.ExcludeFaceResponse:
        async with translate_errors("persons"):
            return await self.assignments.ExcludeFace(
                assignments_pb2.ExcludeFaceRequest(face_id=str(face_id), person_id=person_id)
            )

    async def merge(self, survivor: str, merged: str, **fields: Any) -> persons_pb2.MergePersonsResponse:
        one, other = await self.get(survivor), await self.get(merged)
        async with translate_errors("persons"):
            return await self.people.MergePersons(
                persons_pb2.MergePersonsRequest(
                    survivor_id=survivor, survivor_etag=one.etag, merged_id=merged, merged_etag=other.etag, **fields
                )
            )

    async def delete(self, person_id: str) -> persons_pb2.DeletePersonResponse:
        etag = (await self.get(person_id)).etag
        async with translate_errors("persons"):
            return await self.people.DeletePerson(persons_pb2.DeletePersonRequest(person_id=person_id, etag=etag))

    async def undelete(self, person_id: str) -> persons_pb2.UndeletePersonResponse:
        async with translate_errors("persons"):
            return await self.people.UndeletePerson(persons_pb2.UndeletePersonRequest(person_id=person_id))

    async def undo(self, change_id: str, *, dry_run: bool = False) -> changes_pb2.UndoChangeResponse:
        async with translate_errors("persons"):
            return await self.changes.UndoChange(changes_pb2.UndoChangeRequest(change_id=change_id, dry_run=dry_run))


async def read_state(base: Foundation) -> dict[str, Any]:
    """Everything people consist of, without what every write changes (versions, times of writing, changes)."""
    async with base.database.snapshot() as tx:
        return {
            "persons": {
                row.person_id: (
                    row.name,
                    row.name_key,
                    row.status,
                    row.birth_year,
                    row.birth_month,
                    row.birth_day,
                    row.merged_into,
                    row.chosen_cover,
                    row.notes,
                    row.external_ids,
                    row.face_count,
                    row.first_seen,
                    row.last_seen,
                    row.cover_face_id,
                    row.deleted_at is not None,
                )
                for row in await tx.rows(select(persons))
            },
            "assignments": {
                row.face_id: (row.person_id, row.source, row.confidence, row.choice, row.assigned_at)
                for row in await tx.rows(select(assignments))
            },
            "exclusions": {
                (row.face_id, row.person_id): (row.exclusion_id, row.created_by, row.created_at)
                for row in await tx.rows(select(exclusions))
            },
            "prototypes": {
                row.face_id: (row.person_id, row.role, row.era, row.pinned) for row in await tx.rows(select(prototypes))
            },
        }


def ids(values: Sequence[UUID]) -> list[str]:
    """Ids as the contract has them."""
    return [str(value) for value in values]
