"""PersonService."""

from __future__ import annotations

from typing import Any

import grpc

from kith.persons.v1 import persons_pb2 as pb
from kith.persons.v1 import persons_pb2_grpc
from services.persons.convert import from_date, from_order, from_status, read_person_values, to_people_entry, to_person
from services.persons.domain.model import PersonsDeps
from services.persons.domain.naming import make_name_key
from services.persons.domain.people import CreatePerson, UpdatePerson, create_person, update_person
from services.persons.repository.people import PeopleFilter, list_people
from services.persons.repository.persons import PersonFilter, get_person, list_persons
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.db.pagination import read_page_request
from shared.errors import InvalidRequest, NotFound, NotImplementedYet
from shared.ids import parse_library_id, parse_uuid
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
        async with self._database.transaction() as tx:
            person = await get_person(tx, library_id, person_id)
        if person.deleted_at is not None and not request.show_deleted:
            raise NotFound("person", request.person_id)
        return pb.GetPersonResponse(person=to_person(person))

    async def ListPersons(self, request: pb.ListPersonsRequest, context: Context) -> pb.ListPersonsResponse:
        if request.name_like:
            raise NotImplementedYet("ListPersons.name_like is not built yet")
        library_id = parse_library_id(request.library_id)
        where = PersonFilter(
            statuses=tuple(sorted({from_status(status).value for status in request.statuses})) or ("ACTIVE",),
            name_prefix=make_name_key(request.name_prefix),
            has_birth_date=request.has_birth_date if request.HasField("has_birth_date") else None,
            show_deleted=request.show_deleted,
            order=from_order(request.order),
        )
        page = read_page_request(
            request.page_size, request.page_token, default=50, maximum=500, filters=(library_id, where)
        )
        async with self._database.transaction() as tx:
            found = await list_persons(tx, library_id, page, where)
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

    async def ListPeople(self, request: pb.ListPeopleRequest, context: Context) -> pb.ListPeopleResponse:
        library_id = parse_library_id(request.library_id)
        if request.min_cluster_faces < 0:
            raise InvalidRequest("min_cluster_faces must not be negative", field="min_cluster_faces")
        where = PeopleFilter(
            include_hidden=request.include_hidden,
            persons_only=request.persons_only,
            min_cluster_faces=request.min_cluster_faces,
            include_noise=request.include_noise,
        )
        page = read_page_request(
            request.page_size, request.page_token, default=50, maximum=500, filters=(library_id, where)
        )
        async with self._database.transaction() as tx:
            found = await list_people(tx, library_id, page, where)
        return pb.ListPeopleResponse(
            people=[to_people_entry(entry) for entry in found.items], next_page_token=found.next_token
        )
