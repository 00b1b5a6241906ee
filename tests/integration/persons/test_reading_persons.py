"""GetPerson and ListPersons: names alike, orders, merged and deleted persons."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from kith.persons.v1 import persons_pb2 as pb
from services.persons.domain.model import PersonOrder
from services.persons.domain.naming import make_name_key, make_trigrams
from services.persons.repository.listing import PersonFilter, list_persons, read_person, read_survivor
from shared.db.pagination import read_page_request
from shared.db.tables_persons import persons
from shared.errors import InvalidRequest, KithError, NotFound, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.counting import recording_statements
from tests.integration.library import random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient


async def list_all(client: PersonsClient, page_size: int, **fields: Any) -> list[pb.Person]:
    """Every page of a list."""
    found: list[pb.Person] = []
    token = ""
    while True:
        async with translate_errors("persons"):
            page = await client.people.ListPersons(
                pb.ListPersonsRequest(page_size=page_size, page_token=token, **fields)
            )
        found += page.persons
        token = page.next_page_token
        if not token:
            return found


async def test_a_name_with_typos_is_found_most_alike_first(client: PersonsClient) -> None:
    for name in ("Anna Kowalski", "Hanna Kowalewska", "Bert Meier", "Ana Kowal", "Kowalski"):
        await client.create(name)
    found = await client.people.ListPersons(pb.ListPersonsRequest(name_like="Ana Kowalsky"))
    names = [person.name for person in found.persons]
    assert names[:2] == ["Ana Kowal", "Anna Kowalski"]
    assert "Bert Meier" not in names


async def test_names_are_found_alike_in_any_script(client: PersonsClient) -> None:
    for name in ("王芳", "王方", "欧阳娜娜", "Дмитрий Иванов", "محمد علي", "José"):
        await client.create(name)
    for typed, wanted in (
        ("王芳", "王芳"),
        ("欧阳娜", "欧阳娜娜"),
        ("Дмитри Иваноф", "Дмитрий Иванов"),
        ("محمد", "محمد علي"),
        ("JOSE\u0301", "José"),
    ):
        found = await list_all(client, 50, name_like=typed)
        assert [person.name for person in found][:1] == [wanted]


async def test_likeness_is_the_share_of_trigrams_in_common(client: PersonsClient, base: Foundation) -> None:
    drawn = random.Random(5)
    names = {"kowalski anna", "bert meier"}
    for _ in range(80):
        letters = list("anna kowalski")
        for _ in range(drawn.randint(1, 7)):
            letters[drawn.randrange(len(letters))] = drawn.choice(["", "e", "r", " ", "a"])
        names.add(" ".join("".join(letters).split()))
    for name in names:
        await client.create(name)
    wanted = set(make_trigrams("anna kowalski"))

    def likeness(name: str) -> float:
        own = set(make_trigrams(make_name_key(name)))
        return len(own & wanted) / len(own | wanted)

    expected = {name for name in names if likeness(name) >= base.settings.persons.name_likeness}
    assert 10 < len(expected) < len(names) - 10
    found = [person.name for person in await list_all(client, 7, name_like="Anna Kowalski")]
    assert sorted(found) == sorted(expected)
    assert [likeness(name) for name in found] == sorted(map(likeness, found), reverse=True)


async def test_pages_of_names_equally_alike_have_everybody_once(client: PersonsClient) -> None:
    made = [await client.create("Anna") for _ in range(7)]
    for order in (pb.PERSON_ORDER_UNSPECIFIED, pb.PERSON_ORDER_NAME, pb.PERSON_ORDER_FACE_COUNT):
        found = await list_all(client, 2, name_like="anna", order=order)
        assert sorted(person.id for person in found) == sorted(made)


async def test_a_new_name_is_what_a_person_is_found_by(client: PersonsClient, base: Foundation) -> None:
    anna = await client.create("Anna")
    await client.people.UpdatePerson(pb.UpdatePersonRequest(person=pb.Person(id=anna, name="Wilhelmine")))
    assert not await list_all(client, 50, name_like="Anna")
    assert [person.id for person in await list_all(client, 50, name_like="Vilhelmina")] == [anna]
    async with base.database.transaction() as tx:
        stored = await tx.scalar(select(persons.c.name_trigrams).where(persons.c.person_id == UUID(anna)))
    assert stored == make_trigrams("wilhelmine")


async def test_names_alike_stay_in_their_library(client: PersonsClient) -> None:
    await client.create("Anna")
    assert not await list_all(client, 50, library_id="other", name_like="Anna")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListPersonsRequest(order=pb.PERSON_ORDER_LIKENESS), "order"),
        (pb.ListPersonsRequest(name_like="?!"), "name_like"),
        (pb.ListPersonsRequest(name_like="x" * 201), "name_like"),
        (pb.ListPersonsRequest(name_prefix="x" * 201), "name_prefix"),
        (pb.ListPersonsRequest(page_size=-1), "page_size"),
        (pb.ListPersonsRequest(statuses=[pb.PersonStatus.ValueType(99)]), "statuses"),
        (pb.ListPersonsRequest(library_id="no/library"), "library_id"),
    ],
)
async def test_what_is_wrong_is_named(client: PersonsClient, request_: pb.ListPersonsRequest, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("persons"):
            await client.people.ListPersons(request_)
    assert refused.value.violations[0].field == field


async def test_a_page_token_belongs_to_its_filter(client: PersonsClient) -> None:
    for _ in range(3):
        await client.create("Anna")
    first = await client.people.ListPersons(pb.ListPersonsRequest(page_size=1, name_like="Anna"))
    for other in (
        pb.ListPersonsRequest(name_like="Ana", page_token=first.next_page_token),
        pb.ListPersonsRequest(name_like="Anna", order=pb.PERSON_ORDER_NAME, page_token=first.next_page_token),
        pb.ListPersonsRequest(name_like="Anna", show_deleted=True, page_token=first.next_page_token),
        pb.ListPersonsRequest(library_id="other", name_like="Anna", page_token=first.next_page_token),
    ):
        with pytest.raises(KithError) as refused:
            async with translate_errors("persons"):
                await client.people.ListPersons(other)
        assert refused.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_pages_by_count_and_date_have_everybody_once(client: PersonsClient, base: Foundation) -> None:
    seeded = await seed_faces(base, random_vectors(9))
    made = [await client.create(f"Person {index}") for index in range(6)]
    for person_id, face_ids in zip(made[:4], ((0, 1, 2), (3,), (4, 5), (6, 7, 8)), strict=True):
        await client.assign_all([seeded.face_ids[index] for index in face_ids], person_id)
    by_count = await list_all(client, 2, order=pb.PERSON_ORDER_FACE_COUNT)
    assert [person.face_count for person in by_count] == [3, 3, 2, 1, 0, 0]
    by_date = await list_all(client, 2, order=pb.PERSON_ORDER_LAST_SEEN)
    assert [person.id for person in by_date][:4] == [made[3], made[2], made[1], made[0]]
    # Those never seen come last.
    assert {person.id for person in by_date[4:]} == set(made[4:])
    assert {person.id for person in by_count} == set(made)


async def test_a_prefix_finds_beginnings_and_nothing_else(client: PersonsClient) -> None:
    for name in ("Anna Lena", "Annabel", "Anna", "Johanna", "100% Anna", "ÄNNE"):
        await client.create(name)
    for typed, names in (
        ("anna", ["Anna", "Anna Lena", "Annabel"]),
        ("  ANNA   ", ["Anna Lena"]),
        ("100%", ["100% Anna"]),
        ("%", []),
        ("_", []),
        ("än", ["ÄNNE"]),
    ):
        assert [person.name for person in await list_all(client, 50, name_prefix=typed)] == names


async def test_only_with_or_only_without_a_birth_date(client: PersonsClient) -> None:
    anna, bert = await client.create("Anna"), await client.create("Bert")
    born = pb.Person(id=anna)
    born.birth_date.year = 1990
    await client.people.UpdatePerson(pb.UpdatePersonRequest(person=born))
    assert [person.id for person in await list_all(client, 50, has_birth_date=True)] == [anna]
    assert [person.id for person in await list_all(client, 50, has_birth_date=False)] == [bert]
    assert len(await list_all(client, 50)) == 2


async def chain(base: Foundation, *person_ids: str) -> None:
    """Make each the one part of the next."""
    async with base.database.transaction() as tx:
        for merged, into in pairwise(person_ids):
            values = {"status": "MERGED", "merged_into": UUID(into)}
            await tx.execute(update(persons).where(persons.c.person_id == UUID(merged)).values(values))


async def test_a_merged_person_names_who_they_are_part_of_now(client: PersonsClient, base: Foundation) -> None:
    names = [await client.create(name) for name in ("Ann", "Anna", "Anne", "Anna Lena")]
    await chain(base, *names)
    for merged in names[:3]:
        found = await client.get(merged)
        assert (found.status, found.merged_into) == (pb.PERSON_STATUS_MERGED, names[3])
    listed = await list_all(client, 2, statuses=[pb.PERSON_STATUS_MERGED])
    assert {(person.id, person.merged_into) for person in listed} == {(name, names[3]) for name in names[:3]}
    assert [person.id for person in await list_all(client, 50)] == [names[3]]
    everybody = await list_all(client, 50, statuses=[pb.PERSON_STATUS_MERGED, pb.PERSON_STATUS_ACTIVE])
    assert {person.merged_into for person in everybody} == {"", names[3]}


async def test_reading_costs_one_statement_and_one_more_for_all_the_merged_of_a_page(
    client: PersonsClient, base: Foundation
) -> None:
    names = [await client.create(f"Person {index}") for index in range(12)]
    await chain(base, *names[:8])
    request = read_page_request(50, "", default=50, maximum=500, filters="")
    for where, statements, found in (
        (PersonFilter(), 1, 5),
        (PersonFilter(statuses=("ACTIVE", "MERGED")), 2, 12),
        (PersonFilter(alike=tuple(make_trigrams("person 1")), min_likeness=0.3, order=PersonOrder.LIKENESS), 1, 5),
    ):
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                page = await list_persons(tx, "default", request, where)
        assert (len(sent), len(page.items)) == (statements, found)
    for person_id, statements in ((names[11], 1), (names[0], 2)):
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                await read_person(tx, "default", UUID(person_id))
        assert len(sent) == statements
    with recording_statements(base.database) as sent:
        async with base.database.transaction() as tx:
            assert (await read_survivor(tx, "default", UUID(names[0]))).person_id == UUID(names[7])
    assert len(sent) == 1


async def test_a_deleted_person_is_shown_only_on_request(client: PersonsClient) -> None:
    anna = await client.create("Anna")
    await client.delete(anna)
    with pytest.raises(NotFound):
        async with translate_errors("persons"):
            await client.people.GetPerson(pb.GetPersonRequest(person_id=anna))
    assert (await client.get(anna)).HasField("delete_time")
    assert not await list_all(client, 50)
    assert not await list_all(client, 50, name_like="Anna")
    shown = await list_all(client, 50, show_deleted=True)
    assert [(person.id, person.HasField("delete_time")) for person in shown] == [(anna, True)]


@pytest.mark.parametrize(("library_id", "known"), [("default", False), ("other", True)])
async def test_an_unknown_person_is_not_found(client: PersonsClient, library_id: str, known: bool) -> None:
    person_id = await client.create("Anna") if known else str(uuid4())
    with pytest.raises(NotFound):
        async with translate_errors("persons"):
            await client.people.GetPerson(pb.GetPersonRequest(library_id=library_id, person_id=person_id))
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("persons"):
            await client.people.GetPerson(pb.GetPersonRequest(library_id=library_id, person_id="anna"))
    assert refused.value.violations[0].field == "person_id"
