"""ListPeople: the order of the page, what an entry shows, and what a page costs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import func, insert, text, update

from kith.persons.v1 import persons_pb2 as pb
from services.persons.repository.people import PeopleFilter, list_people
from shared.db.pagination import read_page_request
from shared.db.tables_clustering import cluster_members, cluster_runs, clusters
from shared.db.tables_detection import assets, faces
from shared.errors import InvalidRequest, KithError, Reason
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.counting import recording_statements
from tests.integration.library import MODEL, SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient

CLUSTER_SCANS = text("SELECT pg_stat_get_xact_numscans('ix_clusters_size'::regclass)")
"""How often the index of the clusters was read, by this connection and not yet told to others."""


@pytest.fixture
async def seeded(base: Foundation) -> SeededFaces:
    """Thirty photos, a day apart from 1 January 2020, each with one face, the later the better."""
    return await seed_faces(base, random_vectors(30), qualities=[0.2 + 0.02 * index for index in range(30)])


class Grouping:
    """Puts faces into clusters, as a run would have."""

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self._run_id = base.ids.new_uuid()

    async def begin(self) -> None:
        now = datetime.now(UTC)
        counts = dict.fromkeys(("faces", "clusters", "clustered", "noise", "kept"), 0)
        run = {"run_id": self._run_id, "library_id": "default", "job_id": self._run_id, "mode": "UNSUPERVISED"}
        async with self._base.database.transaction() as tx:
            await tx.execute(
                insert(cluster_runs),
                {**run, **counts, "algorithm": "HDBSCAN", "model_version": MODEL, "thresholds": {}, "seconds": {}}
                | {"created_at": now},
            )

    async def add(self, number: int, face_ids: Sequence[UUID]) -> str:
        """A cluster of these faces; returns its id."""
        now = datetime.now(UTC)
        cluster_id = f"clu_{number:012x}"
        row = {"cluster_id": cluster_id, "library_id": "default", "number": number, "model_version": MODEL}
        async with self._base.database.transaction() as tx:
            await tx.execute(
                insert(clusters),
                {**row, "face_count": len(face_ids), "cohesion": 0.9, "run_id": self._run_id}
                | {"created_at": now, "updated_at": now},
            )
            await tx.execute(
                insert(cluster_members),
                [
                    {"face_id": face_id, "library_id": "default", "cluster_id": cluster_id, "confidence": 0.9}
                    for face_id in face_ids
                ],
            )
        return cluster_id


@pytest.fixture
async def grouping(base: Foundation, seeded: SeededFaces) -> Grouping:
    made = Grouping(base)
    await made.begin()
    return made


async def list_all(client: PersonsClient, page_size: int, **fields: Any) -> list[pb.PeopleEntry]:
    """Every page of the list."""
    found: list[pb.PeopleEntry] = []
    token = ""
    while True:
        page = await client.people.ListPeople(pb.ListPeopleRequest(page_size=page_size, page_token=token, **fields))
        assert len(page.people) <= page_size
        found += page.people
        token = page.next_page_token
        if not token:
            return found


def describe(entry: pb.PeopleEntry) -> tuple[str, int]:
    return entry.display_name, entry.face_count


async def put_aside(base: Foundation, face_ids: Sequence[UUID], state: str) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == func.any(list(face_ids))).values(state=state))


async def test_every_entry_comes_once_in_one_order_whatever_the_size_of_the_page(
    client: PersonsClient, seeded: SeededFaces, grouping: Grouping, base: Foundation
) -> None:
    face = seeded.face_ids
    for name, face_ids in (("Anna", face[:3]), ("Bert", face[3:4]), ("Carl", face[4:5]), ("Dora", ())):
        await client.create(name, face_ids)
    hidden = await client.create("Emil", face[5:7])
    await client.people.UpdatePerson(
        pb.UpdatePersonRequest(
            person=pb.Person(id=hidden, status=pb.PERSON_STATUS_HIDDEN), update_mask=FieldMask(paths=["status"])
        )
    )
    for number, face_ids in ((1, face[7:10]), (2, face[10:13]), (3, face[13:18]), (9, face[18:20])):
        await grouping.add(number, face_ids)
    await put_aside(base, face[20:24], "IGNORED")
    await put_aside(base, face[24:25], "NOT_A_FACE")
    whole = await list_all(client, 500, include_hidden=True, include_noise=True, include_ignored=True)
    assert sorted(map(describe, whole[:5]), key=lambda entry: (-entry[1], entry[0])) == [
        ("Anna", 3),
        ("Emil", 2),
        ("Bert", 1),
        ("Carl", 1),
        ("Dora", 0),
    ]
    assert [entry.face_count for entry in whole[:5]] == [3, 2, 1, 1, 0]
    assert {describe(entry) for entry in whole[5:9]} == {
        ("Unnamed 3", 5),
        ("Unnamed 1", 3),
        ("Unnamed 2", 3),
        ("Unnamed 9", 2),
    }
    assert [entry.face_count for entry in whole[5:9]] == [5, 3, 3, 2]
    assert [(entry.WhichOneof("identity"), *describe(entry)) for entry in whole[9:]] == [
        ("noise", "In no group", 5),
        ("ignored", "Ignored", 4),
    ]
    for page_size in (1, 2, 3, 5, 10, 11):
        assert await list_all(client, page_size, include_hidden=True, include_noise=True, include_ignored=True) == whole
    assert await list_all(client, 4) == [entry for entry in whole[:9] if entry.display_name != "Emil"]
    assert await list_all(client, 2, include_ignored=True) == [
        entry for entry in whole if entry.display_name not in {"Emil", "In no group"}
    ]
    alone = await list_all(client, 3, persons_only=True, include_ignored=True, include_noise=True)
    assert alone == [entry for entry in whole[:5] if entry.display_name != "Emil"]


async def test_what_a_cluster_shows_follows_the_faces_that_are_left(
    client: PersonsClient, seeded: SeededFaces, grouping: Grouping, base: Foundation
) -> None:
    face = seeded.face_ids
    cluster_id = await grouping.add(1, face[10:20])
    first = datetime(2020, 1, 1, tzinfo=UTC)

    async def read() -> tuple[int, str, datetime, datetime]:
        (entry,) = await list_all(client, 10)
        if entry.WhichOneof("identity") == "person_id":
            raise AssertionError("the cluster is gone")
        assert entry.cluster_id == cluster_id
        return (
            entry.face_count,
            entry.cover_face_id,
            entry.first_seen.ToDatetime(tzinfo=UTC),
            entry.last_seen.ToDatetime(tzinfo=UTC),
        )

    assert await read() == (10, str(face[19]), first + timedelta(days=10), first + timedelta(days=19))
    # The best and latest is somebody's now, and the first is no face.
    hidden = await client.create("Anna", face[19:20])
    await client.people.UpdatePerson(
        pb.UpdatePersonRequest(
            person=pb.Person(id=hidden, status=pb.PERSON_STATUS_HIDDEN), update_mask=FieldMask(paths=["status"])
        )
    )
    await put_aside(base, face[10:11], "NOT_A_FACE")
    assert await read() == (8, str(face[18]), first + timedelta(days=11), first + timedelta(days=18))
    await client.unassign(face[19])
    await put_aside(base, face[10:11], "ACTIVE")
    assert (await read())[0] == 10
    await put_aside(base, face[10:20], "IGNORED")
    assert not await list_all(client, 10)


async def test_a_cluster_of_undated_photos_has_no_dates(
    client: PersonsClient, seeded: SeededFaces, grouping: Grouping, base: Foundation
) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(update(assets).values(captured_at=None, captured_precision=None, captured_source=None))
    await grouping.add(1, seeded.face_ids[:3])
    (entry,) = await list_all(client, 10)
    assert (entry.HasField("first_seen"), entry.HasField("last_seen"), entry.face_count) == (False, False, 3)


async def test_naming_faces_meanwhile_neither_repeats_nor_skips_a_cluster(
    client: PersonsClient, seeded: SeededFaces, grouping: Grouping
) -> None:
    face = seeded.face_ids
    made = [
        await grouping.add(number, face[start_at : start_at + size])
        for number, start_at, size in ((1, 0, 9), (2, 9, 8), (3, 17, 7), (4, 24, 6))
    ]
    first = await client.people.ListPeople(pb.ListPeopleRequest(page_size=2))
    # One already seen, and one yet to be seen, become the smallest.
    await client.create("Anna", [*face[0:8], *face[17:23]])
    rest = await client.people.ListPeople(pb.ListPeopleRequest(page_size=10, page_token=first.next_page_token))
    assert [entry.cluster_id for entry in [*first.people, *rest.people]] == made
    assert [describe(entry) for entry in rest.people] == [("Unnamed 3", 1), ("Unnamed 4", 6)]


async def test_small_clusters_are_left_out_by_the_faces_they_have_now(
    client: PersonsClient, seeded: SeededFaces, grouping: Grouping
) -> None:
    face = seeded.face_ids
    for number, face_ids in ((1, face[:5]), (2, face[5:9]), (3, face[9:11])):
        await grouping.add(number, face_ids)
    await client.create("Anna", face[:2])
    listed = await list_all(client, 1, min_cluster_faces=4)
    assert [entry.display_name for entry in listed] == ["Anna", "Unnamed 2"]
    with pytest.raises(InvalidRequest) as refused:
        async with translate_errors("persons"):
            await client.people.ListPeople(pb.ListPeopleRequest(min_cluster_faces=-1))
    assert refused.value.violations[0].field == "min_cluster_faces"


async def test_a_page_token_belongs_to_its_filter(client: PersonsClient) -> None:
    for name in ("Anna", "Bert"):
        await client.create(name)
    token = (await client.people.ListPeople(pb.ListPeopleRequest(page_size=1))).next_page_token
    for other in (
        pb.ListPeopleRequest(page_token=token, include_ignored=True),
        pb.ListPeopleRequest(page_token=token, persons_only=True),
        pb.ListPeopleRequest(page_token=token, library_id="other"),
        pb.ListPeopleRequest(page_token=token + "A"),
    ):
        with pytest.raises(KithError) as refused:
            async with translate_errors("persons"):
                await client.people.ListPeople(other)
        assert refused.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_another_library_has_other_people(client: PersonsClient, seeded: SeededFaces, grouping: Grouping) -> None:
    await client.create("Anna")
    await grouping.add(1, seeded.face_ids[:3])
    listed = await list_all(client, 10, library_id="other", include_noise=True, include_ignored=True)
    assert [describe(entry) for entry in listed] == [("In no group", 0), ("Ignored", 0)]


async def test_a_page_is_one_statement_and_one_of_persons_reads_no_clusters(
    client: PersonsClient, seeded: SeededFaces, grouping: Grouping, base: Foundation
) -> None:
    face = seeded.face_ids
    for index in range(4):
        await client.create(f"Person {index}", face[index : index + 1])
    for number, start_at in ((1, 4), (2, 8), (3, 12)):
        await grouping.add(number, face[start_at : start_at + 4])
    where = PeopleFilter(include_noise=True, include_ignored=True)
    token = ""
    for size, statements in ((3, 1), (3, 1), (50, 1)):
        request = read_page_request(size, token, default=50, maximum=500, filters="")
        with recording_statements(base.database) as sent:
            async with base.database.transaction() as tx:
                page = await list_people(tx, "default", request, where)
        assert len(sent) == statements
        token = page.next_token
    for size, reads_clusters in ((3, False), (5, True)):
        request = read_page_request(size, "", default=50, maximum=500, filters="")
        async with base.database.transaction() as tx:
            # In a library as small as this one the clusters would be sorted, and not read by their index.
            await tx.execute(text("SET LOCAL enable_seqscan = off"))
            before = await tx.scalar(CLUSTER_SCANS)
            await list_people(tx, "default", request, where)
            assert (await tx.scalar(CLUSTER_SCANS) > before) is reads_clusters
