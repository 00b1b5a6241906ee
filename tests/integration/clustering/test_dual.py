"""Faces of known people go to them before the rest is grouped: what persons is told, and what a crash leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import select

from kith.clustering.v1 import clusters_pb2
from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import persons_pb2
from services.clustering.adapters.people import RemotePeople
from services.clustering.domain.assigning import Assigner
from services.clustering.domain.ports import FacesAssigned
from services.clustering.wiring import build_deps
from shared.db.tables_persons import changes
from shared.errors import Unavailable
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, crowd, seed_library
from tests.integration.clustering.recognition import (
    Dual,
    Look,
    count_changes,
    look,
    name,
    near,
    read_assigned,
    read_pairs,
    settle,
    start_dual,
)
from tests.integration.conftest import Running
from tests.integration.library import seed_faces


@pytest.fixture
async def dual(running: Running) -> Dual:
    return await start_dual(running)


BUDGET_MB = 4096


async def test_sure_faces_are_assigned_by_a_machine_and_doubtful_ones_asked(dual: Dual, base: Foundation) -> None:
    known = crowd(8, 8, dimension=128)
    doubtful = np.stack([near(known[0], 0.42, seed=1), near(known[8], 0.42, seed=2)])
    strangers = crowd(6, seed=9, dimension=128)
    seeded = await seed_faces(base, np.concatenate([known, doubtful, strangers]))
    anna = await name(dual, base, "Anna", seeded.face_ids[:4])
    ben = await name(dual, base, "Ben", seeded.face_ids[8:12])
    seen = await look(base)
    assert [person.person_id for person in seen.known.people] == sorted([anna, ben])
    job_id = base.ids.new_uuid()
    assigner = Assigner(dual.people, build_deps(base), "default", job_id)
    before = await count_changes(base)
    await settle(base, assigner, seen)
    made = await read_assigned(base)
    assert {face_id: person_id for face_id, (person_id, _) in made.items()} == {
        **dict.fromkeys(seeded.face_ids[4:8], anna),
        **dict.fromkeys(seeded.face_ids[12:16], ben),
    }
    for face_id, (_, confidence) in made.items():
        row = seen.table.face_ids.index(face_id)
        assert confidence == pytest.approx(seen.recognised.confidences[row], abs=1e-6)
        assert confidence >= 0.995
    asked = await read_pairs(base)
    assert {face_id: person_id for face_id, (person_id, _) in asked.items()} == {
        seeded.face_ids[16]: anna,
        seeded.face_ids[17]: ben,
    }
    assert all(0.5 <= confidence < 0.995 for _, confidence in asked.values())
    assert (assigner.rounds.assigned, assigner.suggested, assigner.ended) == (8, 2, True)
    assert await count_changes(base) == before + 2
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(changes.c.reason).order_by(changes.c.change_id.desc()).limit(2))
    assert {row.reason for row in rows} == {f"recognised by clustering job {job_id}"}
    assert set((await look(base)).table.face_ids) == set(seeded.face_ids[16:])


async def test_on_a_library_what_is_assigned_is_right(dual: Dual, base: Foundation) -> None:
    library = await seed_library(base, 1500, seed=4)
    owners = {}
    for person in range(12):
        own = library.faces_of(person)
        owners[await name(dual, base, f"Person {person}", own[: len(own) // 2])] = person
    await settle(base, Assigner(dual.people, build_deps(base), "default", base.ids.new_uuid()), await look(base))
    made = await read_assigned(base)
    right = [owners[person_id] == library.truth[face_id] for face_id, (person_id, _) in made.items()]
    assert np.mean(right) >= 0.995
    wanted = sum(len(library.faces_of(person)) - len(library.faces_of(person)) // 2 for person in range(12))
    assert sum(right) >= 0.8 * wanted


async def crash_between(base: Foundation, dual: Dual, seen: Look, job_id: UUID) -> Assigner:
    """A worker that sent its first round and died; answers the next one's assigner."""
    first = Assigner(dual.people, build_deps(base), "default", job_id)
    first.plan(seen.known, seen.table, seen.recognised)
    assert first.rounds.prepare()
    kept = first.position
    await first.rounds.send()
    return Assigner(dual.people, build_deps(base), "default", job_id, kept)


async def test_a_worker_that_died_within_a_round_doubles_nothing(
    dual: Dual, base: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.jobs.handing_over.FACES_PER_CALL", 3)
    monkeypatch.setattr("shared.jobs.handing_over.CALLS_PER_ROUND", 2)
    seeded = await seed_faces(base, crowd(14, 14))
    await name(dual, base, "Anna", seeded.face_ids[:4])
    await name(dual, base, "Ben", seeded.face_ids[14:18])
    before = await count_changes(base)
    second = await crash_between(base, dual, await look(base), base.ids.new_uuid())
    assert await count_changes(base) == before + 2
    # The round is sent again before any face is read, and heard again.
    assert await second.rounds.send() == 6
    assert second.rounds.assigned == 6
    assert await count_changes(base) == before + 2
    await settle(base, second, await look(base))
    assert second.rounds.assigned == 20
    assert len(await read_assigned(base)) == 20
    # Of Anna 3, 3 and 4 more in two calls, of Ben 3 in four.
    assert await count_changes(base) == before + 8
    again = Assigner(dual.people, build_deps(base), "default", base.ids.new_uuid(), second.position)
    assert again.ended
    assert (again.rounds.assigned, again.suggested) == (20, 0)


@dataclass
class Faulty:
    """People whose service goes away at its second call."""

    inner: RemotePeople
    calls: int = 0

    async def create_person(self, library_id: str, name: str, request_id: UUID) -> UUID:
        return await self.inner.create_person(library_id, name, request_id)

    async def assign_faces(
        self, library_id: str, face_ids: Sequence[UUID], person_id: UUID, reason: str, request_id: UUID
    ) -> FacesAssigned:
        return await self.inner.assign_faces(library_id, face_ids, person_id, reason, request_id)

    async def assign_recognised(
        self, library_id: str, confidences: Mapping[UUID, float], person_id: UUID, reason: str, request_id: UUID
    ) -> list[UUID]:
        self.calls += 1
        if self.calls == 2:
            raise Unavailable("the persons service does not answer")
        return await self.inner.assign_recognised(library_id, confidences, person_id, reason, request_id)


async def test_a_round_that_failed_is_sent_again(dual: Dual, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(8, 8, 8))
    for person in range(3):
        await name(dual, base, f"Person {person}", seeded.face_ids[person * 8 : person * 8 + 4])
    seen = await look(base)
    faulty = Assigner(Faulty(dual.people), build_deps(base), "default", base.ids.new_uuid())
    faulty.plan(seen.known, seen.table, seen.recognised)
    assert faulty.rounds.prepare()
    with pytest.raises(Unavailable):
        await faulty.rounds.send()
    assert faulty.rounds.assigned == 0
    assert await faulty.rounds.send() == 12
    assert (faulty.rounds.assigned, len(await read_assigned(base))) == (12, 12)
    assert not faulty.rounds.prepare()


async def test_what_changed_meanwhile_wins(dual: Dual, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(8, 8, 8))
    people = [
        await name(dual, base, label, seeded.face_ids[at : at + 4]) for label, at in (("A", 0), ("B", 8), ("C", 16))
    ]
    seen = await look(base)
    # A face goes to somebody else by hand, one is excluded, and a person is deleted.
    await dual.kith.assign([seeded.face_ids[4]], str(people[1]))
    await dual.kith.exclude(seeded.face_ids[5], str(people[0]))
    etag = (await dual.kith.people.GetPerson(persons_pb2.GetPersonRequest(person_id=str(people[2])))).person.etag
    await dual.kith.people.DeletePerson(persons_pb2.DeletePersonRequest(person_id=str(people[2]), etag=etag))
    assigner = Assigner(dual.people, build_deps(base), "default", base.ids.new_uuid())
    await settle(base, assigner, seen)
    assert assigner.rounds.assigned == 6
    assert assigner.position["refused"] == 6
    human = await read_assigned(base, "HUMAN")
    assert human[seeded.face_ids[4]][0] == people[1]
    assert set(await read_assigned(base)) == {*seeded.face_ids[6:8], *seeded.face_ids[12:16]}
    left = set((await look(base)).table.face_ids) & set(seen.table.face_ids)
    assert left == {seeded.face_ids[5], *seeded.face_ids[20:24]}


@pytest.mark.usefixtures("grouping_here")
async def test_the_job_gives_known_people_their_faces_and_groups_the_rest(kith: Kith, base: Foundation) -> None:
    known = crowd(10, 10, 7, dimension=128)
    doubtful = near(known[0], 0.42, seed=1)[None]
    seeded = await seed_faces(base, np.concatenate([known, doubtful]))
    anna = await kith.create("Anna")
    await kith.assign(seeded.face_ids[:4], anna)
    job = await kith.cluster(mode=clusters_pb2.CLUSTER_MODE_DUAL)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    result = dict(job.result)
    assert (result["assigned"], result["suggested"], result["faces"]) == (6, 1, 18)
    assert await kith.face_count(anna) == 10
    groups = [{member.face_id for member in await kith.members(found.id)} for found in await kith.list_clusters()]
    assert groups == [set(map(str, seeded.face_ids[10:20])), set(map(str, seeded.face_ids[20:27]))]
    (run,) = (await kith.clusters.ListClusterRuns(clusters_pb2.ListClusterRunsRequest())).runs
    assert (run.mode, run.assigned, run.suggested) == (clusters_pb2.CLUSTER_MODE_DUAL, 6, 1)
    assert run.seconds["match"] > 0
    # Nothing is left that is sure, and what is asked already is asked once.
    again = dict((await kith.cluster(mode=clusters_pb2.CLUSTER_MODE_DUAL)).result)
    assert (again["assigned"], again["suggested"], again["clusters"]) == (0, 1, 2)
