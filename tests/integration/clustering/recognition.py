"""Recognising people as a job does it, step by step, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from sqlalchemy import func, select, update

from services.clustering.adapters.people import RemotePeople
from services.clustering.domain.assigning import Assigner
from services.clustering.domain.model import ActiveModel
from services.clustering.domain.recognising import (
    Recognised,
    Verdict,
    make_recognition_rules,
    recognise_faces,
)
from services.clustering.repository.known import FaceBounds, KnownPeople, read_bounds, read_known
from services.clustering.repository.unassigned import (
    FaceSelection,
    FaceTable,
    count_unassigned,
    find_active_model,
    read_unassigned,
)
from services.clustering.server import start as start_clustering
from services.clustering.wiring import build_deps
from services.persons.server import start as start_persons
from shared.db.tables_persons import assignments, changes, persons
from shared.db.tables_shared import job_slices, jobs
from shared.faces.embeddings import Vectors
from shared.foundation import Foundation
from shared.jobs.asking import ASK_PAIRS
from tests.integration.clustering.kit import Kith, crowd
from tests.integration.conftest import Running
from tests.integration.library import SeededFaces, seed_faces

BUDGET_MB = 4096


@dataclass(frozen=True, slots=True)
class Dual:
    """The servers, and the port to persons."""

    kith: Kith
    people: RemotePeople


async def start_dual(running: Running) -> Dual:
    """A persons and a clustering server without a worker: nothing happens but what the test does."""
    channel = await running.server("persons", start_persons)
    return Dual(Kith(channel, await running.server("clustering", start_clustering)), RemotePeople(channel))


@dataclass(frozen=True, slots=True)
class Look:
    """Everything a run knows before it changes anything."""

    model: ActiveModel
    known: KnownPeople
    table: FaceTable
    bounds: FaceBounds
    recognised: Recognised

    def verdict(self, face_id: UUID) -> Verdict:
        return Verdict(int(self.recognised.verdicts[self.table.face_ids.index(face_id)]))

    def person(self, face_id: UUID) -> UUID | None:
        number = int(self.recognised.people[self.table.face_ids.index(face_id)])
        return self.known.people[number].person_id if number >= 0 else None


async def look(base: Foundation) -> Look:
    deps = build_deps(base)
    async with base.database.snapshot() as tx:
        model = await find_active_model(tx, "default")
        assert model is not None
        counts = await count_unassigned(tx, "default", model, FaceSelection())
        vectors = np.empty((counts.embedded, model.dimension), dtype=np.float16)
        table = await read_unassigned(tx, "default", model, FaceSelection(), vectors)
        known = await read_known(tx, "default", model, BUDGET_MB)
        bounds = await read_bounds(tx, "default", known, table.face_ids)
    rules = make_recognition_rules(deps, known)
    found = await asyncio.to_thread(recognise_faces, known, table, bounds, rules)
    return Look(model, known, table, bounds, found)


async def settle(base: Foundation, assigner: Assigner, seen: Look) -> None:
    """As the job does it."""
    assigner.plan(seen.known, seen.table, seen.recognised)
    while assigner.rounds.prepare():
        await assigner.rounds.send()
    async with base.database.transaction() as tx:
        await assigner.ask(tx, "anna")


async def name(dual: Dual, base: Foundation, label: str, face_ids: Sequence[UUID]) -> UUID:
    person_id = await dual.kith.create(label)
    await dual.kith.assign(face_ids, person_id)
    return UUID(person_id)


def near(vector: Vectors, cosine: float, seed: int) -> Vectors:
    """A unit vector of that cosine to another."""
    drawn = np.random.default_rng(seed).standard_normal(len(vector)).astype(np.float32)
    across = drawn - (drawn @ vector) * vector
    return np.asarray(cosine * vector + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across), dtype=np.float32)


async def read_pairs(base: Foundation) -> dict[UUID, tuple[UUID, float]]:
    """What people will be asked: (person, confidence) by face."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(
            select(job_slices.c.spec).join(jobs, jobs.c.job_id == job_slices.c.job_id).where(jobs.c.kind == ASK_PAIRS)
        )
    return {
        UUID(face_id): (UUID(person_id), confidence)
        for row in rows
        for face_id, person_id, confidence in row.spec["pairs"]
    }


async def count_changes(base: Foundation) -> int:
    async with base.database.transaction() as tx:
        return int(await tx.scalar(select(func.count()).select_from(changes)))


async def read_assigned(base: Foundation, source: str = "MACHINE") -> dict[UUID, tuple[UUID, float]]:
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(assignments).where(assignments.c.source == source))
    return {row.face_id: (row.person_id, row.confidence) for row in rows}


async def seed_anna(
    dual: Dual, base: Foundation, *, faces_per_photo: int = 1, **person: object
) -> tuple[UUID, SeededFaces]:
    """Anna by her first four faces of ten."""
    seeded = await seed_faces(base, crowd(10), faces_per_photo=faces_per_photo)
    anna = await name(dual, base, "Anna", seeded.face_ids[:4])
    if person:
        async with base.database.transaction() as tx:
            await tx.execute(update(persons).values(**person))
    return anna, seeded
