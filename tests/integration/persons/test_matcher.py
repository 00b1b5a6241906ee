"""MatcherService over real gRPC and PostgreSQL: learning from confirmed faces, measuring, activating, rolling back."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import select, update

from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import changes_pb2
from kith.persons.v1 import matcher_pb2 as pb
from services.persons.domain.matcher import LibraryModel
from services.persons.domain.model import PersonsDeps
from services.persons.domain.training import TrainMatcher, start_training
from services.persons.repository.matchers import read_confirmed
from shared.caller import Caller
from shared.db.tables_detection import faces, models
from shared.db.tables_persons import assignments, matchers, persons
from shared.errors import NotFound, PreconditionFailed, Reason
from shared.faces.projection import Projection
from shared.foundation import Foundation
from shared.rpc.channel import translate_errors
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.library import MODEL, random_vectors, seed_faces
from tests.integration.persons.training import (
    DIMENSION,
    EACH,
    PEOPLE,
    SETTINGS,
    Kith,
    confirm,
    result_of,
    seed_confirmed,
    serve_kith,
    start_kith,
    store_matcher,
)
from tests.unit.persons_matching.conftest import make_faces


@pytest.fixture
async def kith(running: Running) -> Kith:
    """Learns nothing: no worker is there."""
    return await serve_kith(running)


@pytest.fixture
async def learning(running: Running) -> Kith:
    return await start_kith(running)


@pytest.fixture
async def stored(base: Foundation) -> list[str]:
    """Three matchers of a library, the first stored first."""
    await seed_faces(base, random_vectors(1, DIMENSION))
    return [await store_matcher(base) for _ in range(3)]


async def test_a_matcher_that_is_better_is_activated_and_measured_on_others(learning: Kith, base: Foundation) -> None:
    await seed_confirmed(base)
    job = await learning.train(activate_if_better=True)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    assert job.progress.done == job.progress.total == 3
    result = result_of(job)
    assert (result["better"], result["activated"]) == (True, True)
    assert result["after"]["tar_at_far_1e3"] > result["before"]["tar_at_far_1e3"]
    assert "cluster_job_id" not in result
    active = await learning.get_matcher()
    assert active.id == result["matcher_id"]
    assert active.active
    assert active.HasField("activate_time")
    assert (active.persons, active.faces) == (21, 21 * EACH)
    assert (active.held_out_persons, active.held_out_faces) == (13, 13 * EACH)
    assert active.model_version == MODEL
    assert (active.after.eer, active.before.tar_at_far_1e3) == (
        result["after"]["eer"],
        result["before"]["tar_at_far_1e3"],
    )
    async with base.database.transaction() as tx:
        row = (await tx.execute(select(matchers))).one()
    projection = Projection.from_bytes(row.projection, row.input_dimension, row.dimension)
    assert projection.apply(random_vectors(3, DIMENSION)).shape == (3, active.dimension)
    # The training's activation is a change as a human's is.
    assert (await learning.undo(result["change_id"])).reverted_count == 1
    with pytest.raises(NotFound):
        await learning.get_matcher()


async def test_one_that_is_not_better_stays_unused_and_can_be_activated_by_hand(
    learning: Kith, base: Foundation
) -> None:
    # Perfectly told apart already.
    await seed_confirmed(base, nuisance=0.0)
    job = await learning.train(activate_if_better=True, recluster_after=True)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
    assert (result_of(job)["better"], result_of(job)["activated"], result_of(job)["change_id"]) == (False, False, "")
    assert "cluster_job_id" not in result_of(job)
    with pytest.raises(NotFound):
        await learning.get_matcher()
    matcher_id = result_of(job)["matcher_id"]
    assert not (await learning.get_matcher(matcher_id)).active
    made = await learning.activate(matcher_id)
    assert made.matcher.active
    assert made.change_id


async def test_activating_is_a_change_and_rolls_back(kith: Kith, stored: list[str]) -> None:
    first, second, last = stored
    listed: list[str] = []
    token = ""
    while True:
        page = await kith.matchers.ListMatchers(pb.ListMatchersRequest(page_size=1, page_token=token))
        listed += [matcher.id for matcher in page.matchers]
        token = page.next_page_token
        if not token:
            break
    assert listed == [last, second, first]
    one = await kith.activate(first)
    request_id = str(uuid4())
    two = await kith.activate(second, request_id=request_id)
    assert await kith.activate(second, request_id=request_id) == two
    assert (await kith.activate(second)).change_id == ""
    back = await kith.activate(first)
    none = await kith.activate("")
    assert not none.HasField("matcher")
    assert (await kith.activate("")).change_id == ""
    seen = []
    for made in (one, two, back, none):
        change = await kith.get_change(made.change_id)
        assert change.kind == changes_pb2.CHANGE_KIND_MATCHER_ACTIVATED
        seen.append((change.before["matcher"], change.after["matcher"]))
    assert seen == [(None, first), (first, second), (second, first), (first, None)]
    with pytest.raises(NotFound):
        await kith.get_matcher()


async def test_an_activation_is_undone_unless_it_was_changed_since(kith: Kith, stored: list[str]) -> None:
    first, second, _ = stored
    activated = (await kith.activate(first)).change_id
    change_id = (await kith.activate(second)).change_id
    undone = await kith.undo(change_id)
    assert undone.reverted_count == 1
    assert (await kith.get_matcher()).id == first
    await kith.activate("")
    late = await kith.undo(activated)
    assert late.reverted_count == 0
    assert late.skipped_count == 1


async def test_one_matcher_is_active_however_many_activate_at_once(
    kith: Kith, base: Foundation, stored: list[str]
) -> None:
    made = await asyncio.gather(*(kith.activate(matcher_id) for matcher_id in stored * 3))
    assert sum(bool(one.change_id) for one in made) >= 3
    async with base.database.transaction() as tx:
        active = await tx.rows(select(matchers.c.matcher_id).where(matchers.c.active))
    assert len(active) == 1


async def test_too_few_are_told_by_name_and_no_job_is_made(kith: Kith, base: Foundation) -> None:
    vectors, people = make_faces(7, 5)
    seeded = await seed_faces(base, vectors)
    names = ["Anna", "Bert", "Cora", "Dora", "Emil", "Fritz", "Xaver Maria von und zu Hohenstein-Wittgenstein"]
    whose = people.tolist()
    few = [at for at, number in enumerate(whose) if number < 5 or at % 5 < 5 - (number - 4)]
    await confirm(base, [seeded.face_ids[at] for at in few], [whose[at] for at in few], names=names.__getitem__)
    with pytest.raises(PreconditionFailed) as refused:
        await kith.start()
    assert refused.value.reason is Reason.TOO_FEW_FACES
    assert refused.value.metadata == {
        "persons": "5",
        "faces": "25",
        "persons_needed": str(PEOPLE),
        "faces_needed": str(PEOPLE * 5),
    }
    message = str(refused.value.message)
    assert "at least 40 persons with 5 faces each" in message
    assert "5 have that many: Anna (5), Bert (5), Cora (5), Dora (5), Emil (5);" in message
    assert "2 have too few: Fritz (4), Xaver Maria von und zu Hohenstein-Wittg… (3)" in message
    assert not (await kith.jobs.ListJobs(jobs_pb2.ListJobsRequest(kinds=["persons.train_matcher"]))).jobs


async def test_a_library_with_nobody_has_too_few(kith: Kith, base: Foundation) -> None:
    for library_id in ("empty", "default"):
        with pytest.raises(PreconditionFailed) as refused:
            await kith.start(library_id=library_id)
        assert refused.value.metadata["persons"] == "0"
        await seed_faces(base, random_vectors(3))


async def test_only_what_a_human_confirmed_counts(kith: Kith, base: Foundation) -> None:
    vectors, people = make_faces(PEOPLE, 5)
    seeded = await seed_faces(base, vectors)
    made = await confirm(base, seeded.face_ids, people.tolist())
    await kith.start()

    async def persons_found(change: Any, back: Any) -> str:
        async with base.database.transaction() as tx:
            await tx.execute(change)
        with pytest.raises(PreconditionFailed) as refused:
            await kith.start()
        async with base.database.transaction() as tx:
            await tx.execute(back)
        return refused.value.metadata["persons"]

    one, whose = seeded.face_ids[0], made[0]
    face = update(faces).where(faces.c.face_id == one)
    held = update(assignments).where(assignments.c.face_id == one)
    person = update(persons).where(persons.c.person_id == whose)
    for change, back in (
        (face.values(state="NOT_A_FACE"), face.values(state="ACTIVE")),
        (held.values(source="MACHINE"), held.values(source="HUMAN")),
        (person.values(deleted_at=base.clock.now()), person.values(deleted_at=None)),
    ):
        assert await persons_found(change, back) == str(PEOPLE - 1)
    await kith.start()


async def test_what_is_read_is_bounded_fair_and_always_the_same(base: Foundation) -> None:
    vectors, _ = make_faces(1, 60)
    seeded = await seed_faces(base, vectors)
    sizes = [30, 20, 7, 2, 1]
    whose = [number for number, size in enumerate(sizes) for _ in range(size)]
    made = await confirm(base, seeded.face_ids, whose)

    async def read(**limits: int) -> dict[int, int]:
        async with base.database.snapshot() as tx:
            with recording_statements(base.database) as sent:
                found = await read_confirmed(
                    tx, "default", LibraryModel(MODEL, 32), min_faces=2, seed=limits.pop("seed", 0), **limits
                )
        assert len(sent) == 1
        assert found.vectors.dtype == np.float16
        assert (np.diff(found.people) >= 0).all()
        numbers = {person_id: number for number, person_id in made.items()}
        counts = np.bincount(found.people, minlength=len(found.person_ids)).tolist()
        rows[:] = [bytes(row) for row in found.vectors.astype("<f2")]
        return {numbers[person_id]: count for person_id, count in zip(found.person_ids, counts, strict=True)}

    rows: list[bytes] = []
    assert await read(max_per_person=50, max_faces=1000) == {0: 30, 1: 20, 2: 7, 3: 2}
    assert await read(max_per_person=10, max_faces=1000) == {0: 10, 1: 10, 2: 7, 3: 2}
    first = rows.copy()
    assert await read(max_per_person=10, max_faces=1000) == {0: 10, 1: 10, 2: 7, 3: 2}
    assert rows == first
    await read(max_per_person=10, max_faces=1000, seed=1)
    assert rows != first
    # Where not all can be read, everybody's second face comes before anybody's third.
    assert await read(max_per_person=10, max_faces=8) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert sum((await read(max_per_person=10, max_faces=10)).values()) == 10


async def test_asking_costs_the_same_however_many_faces(kith: Kith, base: Foundation, running: Running) -> None:
    async def statements(count: int) -> int:
        library_id = f"of-{count}"
        vectors, people = make_faces(count, EACH)
        seeded = await seed_faces(base, vectors, library_id=library_id)
        await confirm(base, seeded.face_ids, people.tolist(), library_id=library_id)
        deps = PersonsDeps(base.clock, base.ids, SETTINGS)
        command = TrainMatcher(library_id, False, False, 0, 3)
        async with base.database.transaction() as tx:
            with recording_statements(base.database) as sent:
                await start_training(tx, deps, command, Caller("a human", "test"))
        return len(sent)

    assert await statements(PEOPLE) == await statements(2 * PEOPLE)


async def test_a_matcher_of_another_model_is_not_activated(kith: Kith, base: Foundation, stored: list[str]) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(update(models).values(model_version="next_model"))
    with pytest.raises(PreconditionFailed) as refused:
        await kith.activate(stored[0])
    assert refused.value.reason is Reason.MODEL_MISMATCH
    assert refused.value.metadata == {"expected": "next_model", "actual": MODEL}


async def test_another_librarys_matcher_is_not_found(kith: Kith, stored: list[str]) -> None:
    matcher_id = stored[0]
    await kith.activate(matcher_id)
    with pytest.raises(NotFound):
        await kith.activate(matcher_id, library_id="other")
    with pytest.raises(NotFound):
        async with translate_errors("persons"):
            await kith.matchers.GetMatcher(pb.GetMatcherRequest(library_id="other", matcher_id=matcher_id))
    assert not (await kith.matchers.ListMatchers(pb.ListMatchersRequest(library_id="other"))).matchers


async def test_a_retried_call_starts_one_training(kith: Kith, base: Foundation) -> None:
    await seed_confirmed(base)
    request_id = str(uuid4())
    begun = await kith.start(request_id=request_id)
    assert (await kith.start(request_id=request_id)).id == begun.id
    assert len((await kith.jobs.ListJobs(jobs_pb2.ListJobsRequest(kinds=["persons.train_matcher"]))).jobs) == 1
