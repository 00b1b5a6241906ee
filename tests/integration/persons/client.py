"""The persons server as tests call it: its stubs, and the calls that most tests make."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import grpc.aio

from kith.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from kith.persons.v1 import (
    assignments_pb2,
    assignments_pb2_grpc,
    changes_pb2,
    changes_pb2_grpc,
    matcher_pb2_grpc,
    persons_pb2,
    persons_pb2_grpc,
    prototypes_pb2_grpc,
)
from shared.rpc.channel import translate_errors

Answer = TypeVar("Answer")
Source: TypeAlias = assignments_pb2.AssignmentSource.ValueType

HUMAN: Final = assignments_pb2.ASSIGNMENT_SOURCE_HUMAN
MACHINE: Final = assignments_pb2.ASSIGNMENT_SOURCE_MACHINE


async def ask(call: Awaitable[Answer]) -> Answer:
    """What the persons server answers; what it refuses is raised as the error of ours that it is."""
    async with translate_errors("persons"):
        return await call


class PersonsClient:
    """Calls the persons server, by :func:`ask`. ``fields`` are further ones of a request."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.people = persons_pb2_grpc.PersonServiceStub(channel)
        self.assignments = assignments_pb2_grpc.AssignmentServiceStub(channel)
        self.prototypes = prototypes_pb2_grpc.PrototypeServiceStub(channel)
        self.changes = changes_pb2_grpc.ChangeServiceStub(channel)
        self.matchers = matcher_pb2_grpc.MatcherServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)

    async def create(self, name: str, face_ids: Sequence[object] = (), **fields: Any) -> str:
        """A new person, of these ``fields``, with these faces; returns the id."""
        person_id = (await self.create_person(name, **fields)).person.id
        if face_ids:
            await self.assign_all(face_ids, person_id)
        return person_id

    async def create_person(
        self, name: str, *, library_id: str = "", request_id: str = "", **fields: Any
    ) -> persons_pb2.CreatePersonResponse:
        """A new person, of these ``fields``, with all that is told of it."""
        person = persons_pb2.Person(name=name, **fields)
        request = persons_pb2.CreatePersonRequest(library_id=library_id, person=person, request_id=request_id)
        return await ask(self.people.CreatePerson(request))

    async def get(self, person_id: str, *, deleted: bool = True) -> persons_pb2.Person:
        """A person, who may be deleted."""
        request = persons_pb2.GetPersonRequest(person_id=person_id, show_deleted=deleted)
        return (await ask(self.people.GetPerson(request))).person

    async def etag(self, person_id: str) -> str:
        """What a change of the person has to name."""
        return (await self.get(person_id)).etag

    async def delete(self, person_id: str) -> persons_pb2.DeletePersonResponse:
        """Put a person away."""
        request = persons_pb2.DeletePersonRequest(person_id=person_id, etag=await self.etag(person_id))
        return await ask(self.people.DeletePerson(request))

    async def undelete(self, person_id: str) -> persons_pb2.UndeletePersonResponse:
        """Fetch a person back."""
        return await ask(self.people.UndeletePerson(persons_pb2.UndeletePersonRequest(person_id=person_id)))

    async def merge(self, survivor_id: str, merged_id: str, **fields: Any) -> persons_pb2.MergePersonsResponse:
        """Make the second person part of the first."""
        request = persons_pb2.MergePersonsRequest(
            survivor_id=survivor_id,
            survivor_etag=await self.etag(survivor_id),
            merged_id=merged_id,
            merged_etag=await self.etag(merged_id),
            **fields,
        )
        return await ask(self.people.MergePersons(request))

    async def forget(self, person_id: str, etag: str = "", **fields: Any) -> jobs_pb2.Job:
        """Begin to forget a person."""
        request = persons_pb2.ForgetPersonRequest(person_id=person_id, etag=etag, **fields)
        return (await ask(self.people.ForgetPerson(request))).job

    async def get_receipt(self, person_id: str) -> persons_pb2.Receipt:
        """What was deleted of a person who is forgotten."""
        return (await ask(self.people.GetReceipt(persons_pb2.GetReceiptRequest(person_id=person_id)))).receipt

    async def assign(
        self, face_id: object, person_id: str, source: Source = HUMAN, **fields: Any
    ) -> assignments_pb2.AssignFaceResponse:
        """Give a face to a person; a machine is 0.75 sure of it unless told."""
        values: dict[str, Any] = {"confidence": 0.75, **fields}
        request = assignments_pb2.AssignFaceRequest(face_id=str(face_id), person_id=person_id, source=source, **values)
        return await ask(self.assignments.AssignFace(request))

    async def assign_all(
        self, face_ids: Sequence[object], person_id: str, source: Source = HUMAN, **fields: Any
    ) -> assignments_pb2.BatchAssignFacesResponse:
        """Give faces to a person; a machine is 0.75 sure of them unless told."""
        values: dict[str, Any] = {"confidence": 0.75, **fields}
        request = assignments_pb2.BatchAssignFacesRequest(
            face_ids=[str(face_id) for face_id in face_ids], person_id=person_id, source=source, **values
        )
        return await ask(self.assignments.BatchAssignFaces(request))

    async def unassign(self, face_id: object, *, exclude: bool = False) -> assignments_pb2.UnassignFaceResponse:
        """Take a face from its person."""
        request = assignments_pb2.UnassignFaceRequest(face_id=str(face_id), exclude=exclude)
        return await ask(self.assignments.UnassignFace(request))

    async def exclude(self, face_id: object, person_id: str, **fields: Any) -> assignments_pb2.ExcludeFaceResponse:
        """Say that a face is not a person."""
        request = assignments_pb2.ExcludeFaceRequest(face_id=str(face_id), person_id=person_id, **fields)
        return await ask(self.assignments.ExcludeFace(request))

    async def get_change(self, change_id: str, **fields: Any) -> changes_pb2.Change:
        """One change."""
        request = changes_pb2.GetChangeRequest(change_id=change_id, **fields)
        return (await ask(self.changes.GetChange(request))).change

    async def undo(self, change_id: str, *, dry_run: bool = False) -> changes_pb2.UndoChangeResponse:
        """Take a change back."""
        request = changes_pb2.UndoChangeRequest(change_id=change_id, dry_run=dry_run)
        return await ask(self.changes.UndoChange(request))

    async def ended(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        """The job as it is once it has ended, which fails the test if that is not within a minute."""
        request = jobs_pb2.WaitJobRequest(job_id=job.id)
        request.timeout.FromSeconds(50)
        answer = await ask(self.jobs.WaitJob(request, timeout=55))
        assert answer.ended, answer.job
        return answer.job
