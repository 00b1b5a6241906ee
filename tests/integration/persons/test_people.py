"""PersonService over real gRPC and PostgreSQL: creating, changing and listing people."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import insert

from kith.common.v1 import types_pb2
from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc, persons_pb2_grpc
from kith.persons.v1 import persons_pb2 as pb
from services.persons.server import start
from shared.db.tables_clustering import cluster_members, cluster_runs, clusters
from shared.errors import EtagMismatch, InvalidRequest, KithError, NotFound, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.library import MODEL, random_vectors, seed_faces


@pytest.fixture
async def channel(running: Running) -> grpc.aio.Channel:
    return await running.server("persons", start)


@pytest.fixture
def people(channel: grpc.aio.Channel) -> persons_pb2_grpc.PersonServiceStub:
    return persons_pb2_grpc.PersonServiceStub(channel)


async def create(people: persons_pb2_grpc.PersonServiceStub, name: str) -> pb.Person:
    async with translate_errors("persons"):
        return (await people.CreatePerson(pb.CreatePersonRequest(person=pb.Person(name=name)))).person


async def test_a_name_is_text_in_any_script(people: persons_pb2_grpc.PersonServiceStub) -> None:
    for given, kept in (("  Anna  Lena ", "Anna Lena"), ("王芳", "王芳"), ("Jose\u0301", "Jos\u00e9")):
        assert (await create(people, given)).name == kept
    for wrong in ("", "   ", "a\nb", "x" * 201):
        with pytest.raises(InvalidRequest) as refused:
            await create(people, wrong)
        assert refused.value.violations[0].field == "person.name"


async def test_two_may_share_a_name_and_are_told(people: persons_pb2_grpc.PersonServiceStub) -> None:
    first = await create(people, "Anna")
    second = await people.CreatePerson(pb.CreatePersonRequest(person=pb.Person(name="ANNA")))
    assert list(second.same_name_ids) == [first.id]


async def test_a_retried_creation_makes_one_person(people: persons_pb2_grpc.PersonServiceStub) -> None:
    request = pb.CreatePersonRequest(person=pb.Person(name="Anna"), request_id=str(uuid4()))
    assert await people.CreatePerson(request) == await people.CreatePerson(request)
    assert len((await people.ListPersons(pb.ListPersonsRequest())).persons) == 1


async def test_only_masked_fields_change(people: persons_pb2_grpc.PersonServiceStub) -> None:
    anna = await create(people, "Anna")
    birth = types_pb2.Date(year=1990, month=5)
    changed = pb.Person(id=anna.id, name="ignored", birth_date=birth, notes="n", etag=anna.etag)
    request = pb.UpdatePersonRequest(
        person=changed, update_mask=FieldMask(paths=["birth_date", "notes"]), request_id=str(uuid4())
    )
    made = await people.UpdatePerson(request)
    assert (made.person.name, made.person.birth_date, made.person.notes) == ("Anna", birth, "n")
    assert made.person.etag != anna.etag
    assert made.change_id
    assert await people.UpdatePerson(request) == made
    # Without the birth date in the message, the mask takes it away.
    cleared = pb.UpdatePersonRequest(person=pb.Person(id=anna.id), update_mask=FieldMask(paths=["birth_date"]))
    assert not (await people.UpdatePerson(cleared)).person.HasField("birth_date")


async def test_a_stale_etag_and_an_unknown_path_change_nothing(people: persons_pb2_grpc.PersonServiceStub) -> None:
    anna = await create(people, "Anna")
    await people.UpdatePerson(pb.UpdatePersonRequest(person=pb.Person(id=anna.id, name="Anne")))
    with pytest.raises(EtagMismatch):
        async with translate_errors("persons"):
            await people.UpdatePerson(pb.UpdatePersonRequest(person=pb.Person(id=anna.id, name="X", etag=anna.etag)))
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("persons"):
            await people.UpdatePerson(
                pb.UpdatePersonRequest(person=pb.Person(id=anna.id), update_mask=FieldMask(paths=["face_count"]))
            )
    assert refused.value.violations[0].field == "update_mask"
    assert (await people.GetPerson(pb.GetPersonRequest(person_id=anna.id))).person.name == "Anne"


@pytest.mark.parametrize("day", [(2021, 2, 30), (0, 1, 1), (2021, 0, 5), (2021, 13, 0)])
async def test_a_day_that_is_none_is_refused(
    people: persons_pb2_grpc.PersonServiceStub, day: tuple[int, int, int]
) -> None:
    date = types_pb2.Date(year=day[0], month=day[1], day=day[2])
    with pytest.raises(InvalidRequest):
        async with translate_errors("persons"):
            await people.CreatePerson(pb.CreatePersonRequest(person=pb.Person(name="Anna", birth_date=date)))


async def test_pages_follow_the_order_and_keep_to_their_filter(people: persons_pb2_grpc.PersonServiceStub) -> None:
    for name in ("dora", "Anna", "bert", "Änne", "Carl"):
        await create(people, name)
    names: list[str] = []
    token = ""
    while True:
        page = await people.ListPersons(pb.ListPersonsRequest(page_size=2, page_token=token))
        names += [person.name for person in page.persons]
        token = page.next_page_token
        if not token:
            break
        # Somebody comes in behind the page: neither skipped nor repeated among the others.
        await create(people, "Aaron")
    assert [name for name in names if name != "Aaron"] == ["Anna", "bert", "Carl", "dora", "Änne"]
    first = await people.ListPersons(pb.ListPersonsRequest(page_size=2))
    with pytest.raises(KithError) as refused:
        async with translate_errors("persons"):
            await people.ListPersons(pb.ListPersonsRequest(name_prefix="a", page_token=first.next_page_token))
    assert refused.value.reason is Reason.PAGE_TOKEN_INVALID
    found = await people.ListPersons(pb.ListPersonsRequest(name_prefix="AN"))
    assert [person.name for person in found.persons] == ["Anna"]


async def test_the_people_page_has_persons_then_clusters_then_the_rest(
    people: persons_pb2_grpc.PersonServiceStub, channel: grpc.aio.Channel, base: Foundation
) -> None:
    seeded = await seed_faces(base, random_vectors(9))
    now = datetime.now(UTC)
    run_id = base.ids.new_uuid()
    async with base.database.transaction() as tx:
        run = {"run_id": run_id, "library_id": "default", "job_id": base.ids.new_uuid(), "mode": "UNSUPERVISED"}
        counts = {"faces": 6, "clusters": 1, "clustered": 5, "noise": 1, "kept": 0, "thresholds": {}, "seconds": {}}
        await tx.execute(
            insert(cluster_runs), {**run, **counts, "algorithm": "HDBSCAN", "model_version": MODEL, "created_at": now}
        )
        await tx.execute(
            insert(clusters),
            {
                "cluster_id": "clu_000000000001",
                "library_id": "default",
                "number": 7,
                "model_version": MODEL,
                "face_count": 5,
                "cohesion": 0.9,
                "run_id": run_id,
                "created_at": now,
                "updated_at": now,
            },
        )
        await tx.execute(
            insert(cluster_members),
            [
                {"face_id": face, "library_id": "default", "cluster_id": "clu_000000000001", "confidence": 0.9}
                for face in seeded.face_ids[3:8]
            ],
        )
    anna, bert = await create(people, "Anna"), await create(people, "Bert")
    assign = assignments_pb2_grpc.AssignmentServiceStub(channel)
    for person, face_ids in ((anna, seeded.face_ids[:1]), (bert, seeded.face_ids[1:4])):
        await assign.BatchAssignFaces(
            assignments_pb2.BatchAssignFacesRequest(person_id=person.id, face_ids=[str(face) for face in face_ids])
        )
    seen = []
    token = ""
    while True:
        page = await people.ListPeople(pb.ListPeopleRequest(page_size=1, page_token=token, include_noise=True))
        seen += [(row.WhichOneof("identity"), row.display_name, row.face_count) for row in page.people]
        token = page.next_page_token
        if not token:
            break
    # One of the cluster's five faces is Bert's now.
    assert seen == [
        ("person_id", "Bert", 3),
        ("person_id", "Anna", 1),
        ("cluster_id", "Unnamed 7", 4),
        ("noise", "In no group", 1),
    ]
    alone = await people.ListPeople(pb.ListPeopleRequest(persons_only=True, include_noise=True))
    assert len(alone.people) == 2


async def test_another_librarys_person_is_not_found(people: persons_pb2_grpc.PersonServiceStub) -> None:
    anna = await create(people, "Anna")
    for call in (
        people.GetPerson(pb.GetPersonRequest(library_id="other", person_id=anna.id)),
        people.UpdatePerson(pb.UpdatePersonRequest(library_id="other", person=pb.Person(id=anna.id, name="X"))),
    ):
        with pytest.raises(NotFound):
            async with translate_errors("persons"):
                await call


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.CreatePersonRequest(person=pb.Person(name="Anna", notes="a\0b")), "person.notes"),
        (pb.CreatePersonRequest(person=pb.Person(name="Anna", external_ids={"k": "\0"})), "person.external_ids"),
        (pb.CreatePersonRequest(person=pb.Person(name="Anna", status=pb.PersonStatus.ValueType(99))), "status"),
    ],
)
async def test_what_cannot_be_stored_is_refused_by_name(
    people: persons_pb2_grpc.PersonServiceStub, request_: pb.CreatePersonRequest, field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("persons"):
            await people.CreatePerson(request_)
    assert refused.value.violations[0].field == field


async def test_an_order_or_status_the_contract_does_not_have_is_refused(
    people: persons_pb2_grpc.PersonServiceStub,
) -> None:
    for request in (
        pb.ListPersonsRequest(order=pb.PersonOrder.ValueType(99)),
        pb.ListPersonsRequest(statuses=[pb.PersonStatus.ValueType(99)]),
        pb.ListPersonsRequest(name_prefix="\0"),
    ):
        with pytest.raises(InvalidRequest):
            async with translate_errors("persons"):
                await people.ListPersons(request)
    many = pb.ListPersonsRequest(statuses=[pb.PERSON_STATUS_ACTIVE] * 40_000)
    assert not (await people.ListPersons(many)).persons
