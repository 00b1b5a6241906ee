"""A person of whom there is something in every store, and ways to look for it: for tests of forgetting them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import insert, text, update

from kith.common.v1 import types_pb2
from kith.persons.v1 import persons_pb2
from services.clustering.forgetting_jobs import ForgetCentroidsHandler
from services.clustering.wiring import build_deps as build_clustering_deps
from services.detection.domain.model import DetectionDeps
from services.detection.domain.ports import CropsSwept
from services.detection.forgetting_jobs import ForgetFacesHandler
from services.persons.adapters.points import IndexedPoints
from services.persons.domain.forgetting import FORGET_PERSON
from services.persons.forgetting_jobs import ForgetPersonHandler
from services.persons.wiring import build_deps
from services.suggestions.domain.model import Evidence, ExemplarMatch, Question, SuggestionMethod, SuggestionsDeps
from services.suggestions.forgetting_jobs import ForgetSuggestionsHandler
from services.suggestions.repository.questions import store_questions
from shared.db.outbox import PointKind, queue_points
from shared.db.tables_clustering import centroids
from shared.db.tables_detection import models
from shared.db.tables_shared import jobs
from shared.db.tables_suggestions import auto_finds, reviews, suggestions
from shared.faces.embeddings import encode_embedding
from shared.foundation import Foundation
from shared.jobs.execution import JobHandler, SliceExecutor
from shared.jobs.forgetting import FORGET_CENTROIDS, FORGET_FACES, FORGET_SUGGESTIONS
from shared.jobs.model import NewJob
from shared.jobs.repository import create_job, find_ready_slices
from shared.jobs.watch import JobWatch
from shared.vectors.relay import Relay
from tests.integration.library import MODEL, SeededFaces, random_vectors, seed_faces
from tests.integration.persons.client import PersonsClient

NAME = "Wilhelmina Q. Zyx"
OLD_NAME = "Minna Vielliebchen"
MERGED_NAME = "Mina 'the' \"Quoted\""
SECRET = "zyzzyva"
OLD_MODEL = "old_model"
VECTORS = random_vectors(24, seed=3)


class NoCrops:
    """Detection servers without a crop; counts how often they were asked."""

    def __init__(self) -> None:
        self.sweeps = 0

    async def sweep(self, library_id: str) -> CropsSwept:
        self.sweeps += 1
        return CropsSwept(0, 0)


@dataclass(frozen=True, slots=True)
class World:
    """Her, whoever became part of her, and Bert, from and to whom faces went."""

    seeded: SeededFaces
    her: str
    part: str
    bert: str
    to_bert: str
    undone_merge: str
    carl: str

    @property
    def ids(self) -> list[str]:
        return [self.her, self.part]

    def traces(self) -> list[str]:
        """Everything that must not be found any more, but for the ids."""
        return [NAME, OLD_NAME, "Quoted", SECRET]


async def make_world(base: Foundation, client: PersonsClient) -> World:
    """Faces 0..7 come to her, 5 goes on to Bert; 12 is excluded, 13..15 are asked about in every state."""
    seeded = await seed_faces(base, VECTORS)
    face = seeded.face_ids
    her, part, bert, carl = [
        await client.create(name, request_id=str(uuid4())) for name in (OLD_NAME, MERGED_NAME, "Bert", "Carl")
    ]
    await client.people.UpdatePerson(
        persons_pb2.UpdatePersonRequest(
            person=persons_pb2.Person(
                id=her,
                name=NAME,
                notes=f"likes {SECRET}",
                birth_date=types_pb2.Date(year=1950),
                external_ids={"crm": f"{SECRET}-7"},
            ),
            update_mask=FieldMask(paths=["name", "notes", "birth_date", "external_ids"]),
            request_id=str(uuid4()),
        )
    )
    for person, numbers in ((her, range(6)), (part, (6, 7)), (bert, (8, 9)), (carl, (10,))):
        for number in numbers:
            reason = f"as {NAME} said" if person == bert else ""
            await client.assign(face[number], person, reason=reason, request_id=str(uuid4()))
    await client.exclude(face[12], her, request_id=str(uuid4()))
    await client.merge(her, part, request_id=str(uuid4()))
    undone = (await client.merge(her, carl, request_id=str(uuid4()))).change_id
    await client.undo(undone)
    held = await read_etag(base, face[5])
    reason = f"not {NAME.upper()}"
    to_bert = (await client.assign(face[5], bert, reason=reason, etag=held, request_id=str(uuid4()))).change_id
    await _ask(base, seeded, UUID(her), UUID(bert))
    await _average(base, UUID(her))
    await _mention(base, her)
    return World(seeded, her, part, bert, to_bert, undone, carl)


async def read_etag(base: Foundation, face_id: UUID) -> str:
    """The etag of a face's assignment."""
    async with base.database.transaction() as tx:
        return str(await tx.scalar(text("SELECT version FROM assignments WHERE face_id = :id"), {"id": face_id}))


async def _ask(base: Foundation, seeded: SeededFaces, her: UUID, bert: UUID) -> None:
    """Questions about her in every state, with an answer, and one about Bert in which she is next best."""
    exemplar = (ExemplarMatch(seeded.face_ids[0], 0.7),)
    about_her = Evidence(0.6, None, bert, 1, exemplar, 0.8, None)
    about_bert = Evidence(0.6, 0.1, her, 1, (), 0.8, None)
    rows = [(13, her, about_her), (14, her, about_her), (15, her, about_her), (16, bert, about_bert)]
    questions = [
        Question(seeded.face_ids[number], seeded.asset_ids[number], person, 0.7, evidence)
        for number, person, evidence in rows
    ]
    deps = SuggestionsDeps(base.clock, base.ids, base.settings.suggestions)
    async with base.database.transaction() as tx:
        await store_questions(tx, deps, "default", base.ids.new_uuid(), SuggestionMethod.PROTOTYPES, questions)
        for number, state in ((14, "ACCEPTED"), (15, "REJECTED")):
            await tx.execute(
                update(suggestions)
                .where(suggestions.c.face_id == seeded.face_ids[number])
                .values(state=state, reviewed_by="anna", closed_at=base.clock.now())
            )
        for number, person, evidence in ((15, her, about_her), (16, bert, about_bert)):
            row = {
                "review_id": base.ids.new_uuid(),
                "library_id": "default",
                "suggestion_id": base.ids.new_uuid(),
                "face_id": seeded.face_ids[number],
                "person_id": person,
                "answer": "REJECT",
                "confidence": 0.7,
                "evidence": evidence.to_json(),
                "reviewer": "anna",
                "created_at": base.clock.now(),
            }
            await tx.execute(insert(reviews), row)
        await tx.execute(insert(auto_finds), {"person_id": her, "library_id": "default", "accepted": 1})


async def _average(base: Foundation, her: UUID) -> None:
    """Centroids of the active model and of one that is kept, and vectors of that one, too."""
    await base.collections.create_missing(OLD_MODEL, VECTORS.shape[1])
    now = base.clock.now()
    async with base.database.transaction() as tx:
        row = {
            "library_id": "default",
            "model_version": OLD_MODEL,
            "pack": "old",
            "dimension": VECTORS.shape[1],
            "state": "RETIRED",
            "created_at": now,
        }
        await tx.execute(insert(models), row)
        await tx.execute(
            text(
                "INSERT INTO face_embeddings (face_id, model_version, library_id, embedding, norm) "
                "SELECT face_id, :model, library_id, embedding, norm FROM face_embeddings"
            ),
            {"model": OLD_MODEL},
        )
        await tx.execute(
            text(
                "INSERT INTO vector_outbox (kind, point_id, model_version, library_id, queued_at) "
                "SELECT 'FACE', face_id, model_version, library_id, now() FROM face_embeddings ON CONFLICT DO NOTHING"
            )
        )
        for model in (MODEL, OLD_MODEL):
            centroid_id = base.ids.new_uuid()
            made = {
                "centroid_id": centroid_id,
                "library_id": "default",
                "person_id": her,
                "model_version": model,
                "kind": "GLOBAL",
                "mode": 0,
                "embedding": encode_embedding(VECTORS[0]),
                "face_count": 7,
                "trimmed_count": 0,
                "members_hash": b"x",
                "version": 1,
                "computed_at": now,
            }
            await tx.execute(insert(centroids), made)
            await queue_points(tx, base.clock, PointKind.CENTROID, "default", [(centroid_id, model)])


async def _mention(base: Foundation, her: str) -> None:
    """A job that ended and says her name, one that is yet to run and says her id."""
    async with base.database.transaction() as tx:
        spec = {"person_ids": [her], "label": MERGED_NAME}
        ended = NewJob("default", "test.ended", "face", [spec], "anna", spec=spec)
        job = await create_job(tx, ended, base.ids, base.clock)
        await tx.execute(
            update(jobs)
            .where(jobs.c.job_id == job.job_id)
            .values(state="FAILED", error_message=f"{NAME}: too few faces", result={"by_person": {her: NAME}})
        )
        failure = {"job": job.job_id, "item": her, "message": f"person '{her}' ({OLD_NAME}) is gone"}
        await tx.execute(
            text("INSERT INTO job_failures (job_id, item_id, reason, message) VALUES (:job, :item, 'X', :message)"),
            failure,
        )
        await create_job(
            tx, NewJob("default", "test.waiting", "face", [{"person_ids": [her]}], "anna"), base.ids, base.clock
        )


def make_handlers(base: Foundation, *, stalled_s: float = 60.0) -> dict[str, JobHandler]:
    """Every service's part in forgetting a person."""
    watch = JobWatch(base.database, base.listener, base.settings.jobs)
    points = IndexedPoints(base.qdrant, base.collections)
    detection = DetectionDeps(base.clock, base.ids, base.settings.detection)
    return {
        FORGET_PERSON: ForgetPersonHandler(base.database, build_deps(base), watch, points, stalled_s),
        FORGET_SUGGESTIONS: ForgetSuggestionsHandler(base.database),
        FORGET_CENTROIDS: ForgetCentroidsHandler(base.database, build_clustering_deps(base)),
        FORGET_FACES: ForgetFacesHandler(base.database, detection, NoCrops()),
    }


@asynccontextmanager
async def working(base: Foundation, handlers: Mapping[str, JobHandler], *, relay: bool = True) -> AsyncIterator[None]:
    """Run slices of these kinds, and, unless told not to, a relay, while the block does; raises what one of them died of."""
    executor = SliceExecutor(dict(handlers), base.database, base.clock, base.ids, base.settings.jobs)

    async def take() -> None:
        async with asyncio.TaskGroup() as group:
            taken: set[tuple[UUID, int]] = set()
            while True:
                async with base.database.transaction() as tx:
                    ready = await find_ready_slices(tx, base.clock, list(handlers), 10)
                for turn in ready:
                    if (turn.job_id, turn.epoch) not in taken:
                        taken.add((turn.job_id, turn.epoch))
                        group.create_task(executor.run_slice(turn.job_id, turn.ordinal))
                await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(take())]
    if relay:
        settings = base.settings.relay
        relaying = Relay(
            base.database, base.qdrant, base.collections, base.listener, base.clock, settings, base.metrics
        )
        tasks.append(asyncio.create_task(relaying.run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
