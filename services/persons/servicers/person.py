"""PersonService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.persons.v1 import persons_pb2 as pb
from kith.persons.v1 import persons_pb2_grpc
from services.persons.convert import (
    from_date,
    from_order,
    from_status,
    read_person_values,
    to_people_entry,
    to_person,
    to_photo,
    to_receipt,
)
from services.persons.domain.forgetting import ForgetPerson, forget_person
from services.persons.domain.merging import MergePersons, merge_persons
from services.persons.domain.model import PersonOrder, PersonsDeps
from services.persons.domain.naming import make_name_key, make_name_prefix, make_trigrams
from services.persons.domain.people import CreatePerson, UpdatePerson, create_person, update_person
from services.persons.domain.putting_away import DeletePerson, UndeletePerson, delete_person, undelete_person
from services.persons.repository.listing import PersonFilter, list_persons, read_person, read_survivor
from services.persons.repository.people import PeopleFilter, list_people
from services.persons.repository.photos import list_photos
from services.persons.repository.receipts import find_receipt
from services.persons.servicers.person_photos import move_person_photos, remove_person_photos
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest, NotFound
from shared.ids import parse_library_id, parse_uuid
from shared.jobs.convert import to_job
from shared.rpc.mutation import Mutations

Context = grpc.aio.ServicerContext[Any, Any]


class PersonServicer(persons_pb2_grpc.PersonServiceServicer):
    """The people of a library."""

    def __init__(self, database: Database, mutations: Mutations, deps: PersonsDeps) -> None:
        self._database = database
        self._mutations = mutations
        self._deps = deps

    async def CreatePerson(self, request: pb.CreatePersonRequest, context: Context) -> pb.CreatePersonResponse:
        person = request.person
        command = CreatePerson(
            library_id=parse_library_id(request.library_id),
            name=person.name,
            status=from_status(person.status),
            birth_date=from_date(person.birth_date, "person.birth_date") if person.HasField("birth_date") else None,
            notes=person.notes,
            external_ids=dict(person.external_ids),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.CreatePersonResponse:
            made = await create_person(tx, self._deps, command, caller)
            return pb.CreatePersonResponse(
                person=to_person(made.person),
                same_name_ids=[str(person_id) for person_id in made.same_name_ids],
                change_id=str(made.change_id),
            )

        return await self._mutations.run(request, pb.CreatePersonResponse, work)

    async def GetPerson(self, request: pb.GetPersonRequest, context: Context) -> pb.GetPersonResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")
        person = await read_person(self._database.reads, library_id, person_id, show_deleted=request.show_deleted)
        return pb.GetPersonResponse(person=to_person(person))

    async def ListPersons(self, request: pb.ListPersonsRequest, context: Context) -> pb.ListPersonsResponse:
        library_id = parse_library_id(request.library_id)
        alike = tuple(make_trigrams(make_name_key(self._check_length(request.name_like, "name_like"))))
        if request.name_like and not alike:
            raise InvalidRequest("name_like must hold a letter or number", field="name_like")
        order = from_order(request.order, PersonOrder.LIKENESS if alike else PersonOrder.NAME)
        if order is PersonOrder.LIKENESS and not alike:
            raise InvalidRequest("order PERSON_ORDER_LIKENESS needs name_like", field="order")
        where = PersonFilter(
            statuses=tuple(sorted({from_status(status, "statuses").value for status in request.statuses}))
            or ("ACTIVE",),
            name_prefix=make_name_prefix(self._check_length(request.name_prefix, "name_prefix")),
            alike=alike,
            min_likeness=self._deps.settings.name_likeness,
            has_birth_date=request.has_birth_date if request.HasField("has_birth_date") else None,
            show_deleted=request.show_deleted,
            order=order,
        )
        page = read_page_request(
            request.page_size, request.page_token, default=50, maximum=500, filters=(library_id, where)
        )
        found = await list_persons(self._database.reads, library_id, page, where)
        return pb.ListPersonsResponse(
            persons=[to_person(person) for person in found.items], next_page_token=found.next_token
        )

    async def UpdatePerson(self, request: pb.UpdatePersonRequest, context: Context) -> pb.UpdatePersonResponse:
        command = UpdatePerson(
            library_id=parse_library_id(request.library_id),
            person_id=parse_uuid(request.person.id, "person.id"),
            etag=request.person.etag,
            values=read_person_values(request.person, request.update_mask),
        )

        async def work(tx: Transaction, caller: Caller) -> pb.UpdatePersonResponse:
            made = await update_person(tx, self._deps, command, caller)
            return pb.UpdatePersonResponse(
                person=to_person(made.person),
                same_name_ids=[str(person_id) for person_id in made.same_name_ids],
                change_id=str(made.change_id or ""),
            )

        return await self._mutations.run(request, pb.UpdatePersonResponse, work)

    async def DeletePerson(self, request: pb.DeletePersonRequest, context: Context) -> pb.DeletePersonResponse:
        command = DeletePerson(
            parse_library_id(request.library_id), parse_uuid(request.person_id, "person_id"), request.etag
        )

        async def work(tx: Transaction, caller: Caller) -> pb.DeletePersonResponse:
            made = await delete_person(tx, self._deps, command, caller)
            return pb.DeletePersonResponse(person=to_person(made.person), change_id=str(made.change_id))

        return await self._mutations.run(request, pb.DeletePersonResponse, work)

    async def UndeletePerson(self, request: pb.UndeletePersonRequest, context: Context) -> pb.UndeletePersonResponse:
        command = UndeletePerson(parse_library_id(request.library_id), parse_uuid(request.person_id, "person_id"))

        async def work(tx: Transaction, caller: Caller) -> pb.UndeletePersonResponse:
            made = await undelete_person(tx, self._deps, command, caller)
            return pb.UndeletePersonResponse(person=to_person(made.person), change_id=str(made.change_id))

        return await self._mutations.run(request, pb.UndeletePersonResponse, work)

    async def ForgetPerson(self, request: pb.ForgetPersonRequest, context: Context) -> pb.ForgetPersonResponse:
        command = ForgetPerson(
            library_id=parse_library_id(request.library_id),
            person_id=parse_uuid(request.person_id, "person_id"),
            etag=request.etag,
            delete_faces=request.delete_faces,
        )

        async def work(tx: Transaction, caller: Caller) -> pb.ForgetPersonResponse:
            job = await forget_person(tx, self._deps, command, caller)
            return pb.ForgetPersonResponse(job=to_job(job, self._deps.clock.now()))

        return await self._mutations.run(request, pb.ForgetPersonResponse, work)

    async def GetReceipt(self, request: pb.GetReceiptRequest, context: Context) -> pb.GetReceiptResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")
        async with self._database.transaction() as tx:
            receipt = await find_receipt(tx, library_id, person_id)
        if receipt is None:
            raise NotFound("receipt", request.person_id)
        return pb.GetReceiptResponse(receipt=to_receipt(receipt, library_id))

    async def MergePersons(self, request: pb.MergePersonsRequest, context: Context) -> pb.MergePersonsResponse:
        command = MergePersons(
            library_id=parse_library_id(request.library_id),
            survivor_id=parse_uuid(request.survivor_id, "survivor_id"),
            survivor_etag=request.survivor_etag,
            merged_id=parse_uuid(request.merged_id, "merged_id"),
            merged_etag=request.merged_etag,
            birth_date=from_date(request.birth_date, "birth_date") if request.HasField("birth_date") else None,
        )

        async def work(tx: Transaction, caller: Caller) -> pb.MergePersonsResponse:
            made = await merge_persons(tx, self._deps, command, caller)
            survivor = to_person(made.survivor)
            if request.dry_run:
                # Of the person as it would be: no etag of the person as it is.
                survivor.ClearField("etag")
            return pb.MergePersonsResponse(
                survivor=survivor,
                faces_moved=made.faces_moved,
                faces_unassigned=made.faces_unassigned,
                prototypes_moved=made.prototypes_moved,
                exclusions_moved=made.exclusions_moved,
                suggestions_moved=made.suggestions_moved,
                change_id="" if request.dry_run else str(made.change_id),
            )

        return await self._mutations.run(request, pb.MergePersonsResponse, work, dry_run=request.dry_run)

    async def RemovePersonPhotos(
        self, request: pb.RemovePersonPhotosRequest, context: Context
    ) -> pb.RemovePersonPhotosResponse:
        return await remove_person_photos(self._mutations, self._deps, request)

    async def MovePersonPhotos(
        self, request: pb.MovePersonPhotosRequest, context: Context
    ) -> pb.MovePersonPhotosResponse:
        return await move_person_photos(self._mutations, self._deps, request)

    async def ListPeople(self, request: pb.ListPeopleRequest, context: Context) -> pb.ListPeopleResponse:
        library_id = parse_library_id(request.library_id)
        if request.min_cluster_faces < 0:
            raise InvalidRequest("min_cluster_faces must not be negative", field="min_cluster_faces")
        where = PeopleFilter(
            include_hidden=request.include_hidden,
            persons_only=request.persons_only,
            min_cluster_faces=request.min_cluster_faces,
            include_noise=request.include_noise,
            include_ignored=request.include_ignored,
        )
        page = read_page_request(
            request.page_size, request.page_token, default=50, maximum=500, filters=(library_id, where)
        )
        found = await list_people(self._database.reads, library_id, page, where)
        return pb.ListPeopleResponse(
            people=[to_people_entry(entry) for entry in found.items], next_page_token=found.next_token
        )

    async def ListPersonPhotos(
        self, request: pb.ListPersonPhotosRequest, context: Context
    ) -> pb.ListPersonPhotosResponse:
        library_id = parse_library_id(request.library_id)
        person_id = parse_uuid(request.person_id, "person_id")
        page = read_page_request(
            request.page_size, request.page_token, default=100, maximum=1000, filters=(library_id, person_id)
        )
        async with self._database.transaction() as tx:
            person = await read_survivor(tx, library_id, person_id)
            found = await list_photos(tx, person, page)
        return pb.ListPersonPhotosResponse(
            photos=[to_photo(photo) for photo in found.items], next_page_token=found.next_token
        )

    def _check_length(self, text: str, field: str) -> str:
        """No name is longer, so that none is searched for in vain, nor at any length."""
        longest = self._deps.settings.max_name_length
        if len(text) > longest:
            raise InvalidRequest(f"{field} must have at most {longest} characters", field=field)
        return text
