"""What people are recognised by, and what keeps a machine from taking a face for one of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import insert, update

from kith.persons.v1 import assignments_pb2
from services.clustering.domain.assigning import Assigner
from services.clustering.domain.recognising import (
    Verdict,
    make_recognition_rules,
    recognise_faces,
)
from services.clustering.repository.known import read_bounds, read_known
from services.clustering.wiring import build_deps
from shared.db.tables_clustering import centroids
from shared.db.tables_detection import faces, models
from shared.db.tables_persons import persons, prototypes
from shared.errors import MemoryBudgetExceeded
from shared.faces.embeddings import encode_embedding
from shared.foundation import Foundation
from tests.integration.clustering.kit import crowd
from tests.integration.clustering.recognition import (
    Dual,
    look,
    name,
    read_assigned,
    read_pairs,
    seed_anna,
    settle,
    start_dual,
)
from tests.integration.conftest import Running
from tests.integration.counting import recording_statements
from tests.integration.library import MODEL, seed_faces


@pytest.fixture
async def dual(running: Running) -> Dual:
    return await start_dual(running)


async def test_what_a_human_refused_is_neither_assigned_nor_asked(dual: Dual, base: Foundation) -> None:
    anna, seeded = await seed_anna(dual, base)
    await dual.kith.exclude(seeded.face_ids[4], str(anna))
    seen = await look(base)
    assert [seen.person(face_id) for face_id in seeded.face_ids[4:8]] == [None, anna, anna, anna]


async def test_nobody_is_found_in_a_photo_from_before_their_birth(dual: Dual, base: Foundation) -> None:
    # Photos were taken a day apart from 1 January 2020 on.
    anna, seeded = await seed_anna(dual, base, birth_year=2020, birth_month=1, birth_day=7)
    seen = await look(base)
    assert [seen.person(face_id) for face_id in seeded.face_ids[4:]] == [None, None, anna, anna, anna, anna]


async def test_one_person_gets_one_face_of_a_photo(dual: Dual, base: Foundation) -> None:
    anna, seeded = await seed_anna(dual, base, faces_per_photo=3)
    seen = await look(base)
    # Photos: 0 1 2 | 3 4 5 | 6 7 8 | 9, of which 0 to 3 are Anna's already.
    assert [seen.verdict(face_id) for face_id in seeded.face_ids[4:6]] == [Verdict.ASK] * 2
    third = sorted(seen.verdict(face_id) for face_id in seeded.face_ids[6:9])
    assert third == [Verdict.ASK, Verdict.ASK, Verdict.ASSIGN]
    assert seen.verdict(seeded.face_ids[9]) is Verdict.ASSIGN
    await dual.kith.assignments.AllowDoubles(
        assignments_pb2.AllowDoublesRequest(asset_ids=[seeded.asset_ids[3], seeded.asset_ids[6]], allowed=True)
    )
    allowed = await look(base)
    assert {allowed.verdict(face_id) for face_id in seeded.face_ids[4:]} == {Verdict.ASSIGN}
    assigner = Assigner(dual.people, build_deps(base), "default", base.ids.new_uuid())
    await settle(base, assigner, allowed)
    assert (assigner.rounds.assigned, assigner.position["refused"]) == (6, 0)
    assert {person_id for person_id, _ in (await read_assigned(base)).values()} == {anna}


async def test_who_is_known_and_by_what(dual: Dual, base: Foundation) -> None:
    seeded = await seed_faces(base, crowd(6, 6, 6, 6))
    anna, ben, clara, dora = [
        await name(dual, base, label, seeded.face_ids[at * 6 : at * 6 + 4 - at]) for at, label in enumerate("abcd")
    ]
    await dual.kith.create("Nobody's face")
    mode = crowd(1, seed=5)[0]
    async with base.database.transaction() as tx:
        await tx.execute(update(persons).where(persons.c.person_id == ben).values(status="HIDDEN"))
        await tx.execute(update(persons).where(persons.c.person_id == dora).values(deleted_at=base.clock.now()))
        await tx.execute(update(prototypes).where(prototypes.c.person_id == anna).values(era="ADULT"))
        await tx.execute(
            update(models).values(calibration={"slope": 12.0, "intercept": -5.0}, thresholds={"assign_floor": 0.7})
        )
        for kind, model_version in (("CLUSTER", MODEL), ("GLOBAL", MODEL), ("CLUSTER", "another_model")):
            await tx.execute(
                insert(centroids),
                {
                    "centroid_id": base.ids.new_uuid(),
                    "library_id": "default",
                    "person_id": clara,
                    "model_version": model_version,
                    "kind": kind,
                    "mode": 0,
                    "embedding": encode_embedding(mode),
                    "face_count": 2,
                    "trimmed_count": 0,
                    "members_hash": b"",
                    "version": 1,
                    "computed_at": base.clock.now(),
                },
            )
    seen = await look(base)
    known = seen.known
    names = {person.person_id: number for number, person in enumerate(known.people)}
    assert list(names) == [anna, *sorted([ben, clara])]
    assert [person.asked_about for person in known.people] == [person.person_id != ben for person in known.people]
    assert (known.references.tolist(), known.starts.tolist()) == ([4, 3, 3], [0, 3, 6, 9, 10])
    assert {person: int(known.prototypes[number]) for person, number in names.items()} == {anna: 4, ben: 3, clara: 2}
    np.testing.assert_allclose(known.vectors[known.starts[2] + names[clara]], mode, atol=1e-3)
    own = known.vectors[known.starts[:4] + names[anna]]
    wanted = crowd(6, 6, 6, 6)[:4]
    assert ((own @ wanted.T).max(axis=0) > 0.999).all()
    assert known.eras[known.starts[:4] + names[anna]].tolist() == [4] * 4
    assert (known.eras >= 0).sum() == 4
    rules = make_recognition_rules(build_deps(base), known)
    assert (rules.floor, rules.assign_floor, rules.assign_precision) == (0.3, 0.7, 0.995)
    assert (known.calibration.slope, known.calibration.intercept) == (12.0, -5.0)
    async with base.database.transaction() as tx:
        with pytest.raises(MemoryBudgetExceeded) as refused:
            await read_known(tx, "default", replace(seen.model, dimension=1 << 20), 16)
    assert refused.value.metadata == {"needed_mb": "40", "budget_mb": "16"}


async def test_a_library_without_people(dual: Dual, base: Foundation) -> None:
    await seed_faces(base, crowd(3))
    seen = await look(base)
    assert seen.known.people == []
    assigner = Assigner(dual.people, build_deps(base), "default", base.ids.new_uuid())
    await settle(base, assigner, seen)
    assert (assigner.rounds.assigned, assigner.suggested, assigner.ended) == (0, 0, True)
    assert await read_pairs(base) == {}


async def test_reading_costs_the_same_for_many(dual: Dual, base: Foundation) -> None:
    costs = []
    for people in (2, 12):
        seeded = await seed_faces(base, crowd(*[6] * people, seed=people))
        for person in range(people):
            await name(dual, base, f"Person {person}", seeded.face_ids[person * 6 : person * 6 + 3])
        with recording_statements(base.database) as sent:
            seen = await look(base)
        costs.append(len(sent))
        assert len(seen.known.people) >= people
    assert costs[0] == costs[1] <= 16


async def test_faces_read_before_others_got_them_are_left_alone(dual: Dual, base: Foundation) -> None:
    _, seeded = await seed_anna(dual, base)
    seen = await look(base)
    await dual.kith.assign([seeded.face_ids[4]], await dual.kith.create("Ben"))
    async with base.database.transaction() as tx:
        await tx.execute(update(faces).where(faces.c.face_id == seeded.face_ids[5]).values(state="NOT_A_FACE"))
    async with base.database.snapshot() as tx:
        bounds = await read_bounds(tx, "default", seen.known, seen.table.face_ids)
    found = recognise_faces(seen.known, seen.table, bounds, make_recognition_rules(build_deps(base), seen.known))
    assert {seen.table.face_ids[row] for row in np.flatnonzero(bounds.free).tolist()} == set(seeded.face_ids[6:])
    assert {seen.table.face_ids[row] for row in found.rows_to(Verdict.ASSIGN).tolist()} == set(seeded.face_ids[6:])
    assert len(found.rows_to(Verdict.ASK)) == 0
