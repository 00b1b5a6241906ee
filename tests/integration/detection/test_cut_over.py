"""A library moved to another model and back: each search is of one space, before, after and meanwhile.

The other model is a rotation of the first. Every cosine is the same in both spaces, and between them there is no likeness
at all: so answers that stay the same show that nothing of one model was ever held against the other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select

from demo.client import FoundFace
from demo.drawing import draw_album
from demo.truth import Truth, read_album
from kith.detection.v1 import assets_pb2, faces_pb2, models_pb2, sessions_pb2
from kith.jobs.v1 import jobs_pb2
from services.clustering import jobs as clustering_jobs
from services.clustering.grouping.pipeline import group_faces
from services.detection.adapters.lookers import ActiveLooker, open_fleets
from services.detection.inference.faces import ModelInfo
from services.detection.worker import start as start_worker
from shared.config import Settings
from shared.db.tables_clustering import centroids
from shared.db.tables_suggestions import suggestions
from shared.errors import EtagMismatch, InvalidRequest, NotFound, PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.clustering.kit import Kith, start_kith
from tests.integration.conftest import Running, eventually
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.conftest import Album
from tests.integration.detection.handlers import HeldLooker, build_executor
from tests.integration.detection.moving import Moving, NextModel, detect, read_vectors, start_next
from tests.integration.suggestions.album import Person
from tests.integration.suggestions.conftest import Questions, start_questions

FULL = 128
NAMED = 3


@pytest.fixture(scope="session")
def gathering(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """An album in which the same people are seen again and again."""
    folder = tmp_path_factory.mktemp("gathering")
    draw_album(7, people=4, photos=24, out=folder, workers=1)
    return read_album(folder)


@pytest.fixture
async def settings(settings: Settings, gathering: Truth) -> Settings:
    roots = (*settings.images.roots, gathering.photos[0].path.parent.as_uri())
    return settings.model_copy(update={"images": settings.images.model_copy(update={"roots": roots})})


@pytest.fixture
async def turned(detection: DetectionClient, running: Running, tmp_path: Path) -> NextModel:
    """Servers of a model in another space of the same dimension."""
    return await start_next(running, tmp_path, FULL)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a library answers about its people and its unknown faces."""

    suggested: frozenset[tuple[UUID, UUID]]
    found: dict[str, float]
    groups: frozenset[frozenset[str]]


class Library:
    """The other services, over a library some of whose faces are named."""

    def __init__(self, base: Foundation, kith: Kith, questions: Questions, persons: Sequence[Person]) -> None:
        self._base = base
        self.kith = kith
        self.questions = questions
        self.persons = persons

    async def ask(self) -> Answers:
        """Everything anew: questions by prototypes, faces by centroid, groups of the unnamed."""
        async with self._base.database.transaction() as tx:
            # A question that is open already would be kept, whatever the search says.
            await tx.execute(delete(suggestions))
        await self.questions.find_more(*self.persons)
        found: dict[str, float] = {}
        for person in self.persons:
            matches = await self.kith.search(str(person.person_id), limit=50)
            found |= {f"{person.name} {match.face_id}": match.cosine for match in matches}
        job = await self.kith.cluster()
        assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job
        members = [await self.kith.members(each.id) for each in await self.kith.list_clusters()]
        return Answers(
            suggested=frozenset(await self.questions.pairs()),
            found=found,
            groups=frozenset(frozenset(member.face_id for member in each) for each in members),
        )

    async def centroid_models(self) -> list[str]:
        """The model of each person's stored centroids of all faces."""
        async with self._base.database.transaction() as tx:
            rows = await tx.rows(select(centroids.c.model_version).where(centroids.c.kind == "GLOBAL"))
        return sorted(row.model_version for row in rows)


@pytest.fixture
async def library(
    detection: DetectionClient,
    turned: NextModel,
    running: Running,
    base: Foundation,
    gathering: Truth,
    monkeypatch: pytest.MonkeyPatch,
) -> Library:
    """A library in which three faces of each of two people are named."""
    # In a thread of the test: a new process takes seconds to import what it needs.
    monkeypatch.setattr(clustering_jobs, "group_in_process", group_faces)
    await running.worker(start_worker)
    await detect(detection, {photo.asset_id: photo.path.as_uri() for photo in gathering.photos})
    by_person = identify(gathering, await detection.list_faces())
    kith = await start_kith(running)
    questions = await start_questions(running, base)
    persons: list[Person] = []
    for name, face_ids in sorted(by_person.items(), key=lambda item: -len(item[1]))[:2]:
        persons.append(Person(UUID(await kith.create(name)), name))
        await kith.assign(face_ids[:NAMED], str(persons[-1].person_id))
    return Library(base, kith, questions, persons)


def identify(truth: Truth, faces: Sequence[faces_pb2.Face]) -> dict[str, list[str]]:
    """The faces of each person whose name is known, in order."""
    found = [
        FoundFace(
            face.id,
            face.asset_id,
            (face.box.x, face.box.y, face.box.width, face.box.height),
            face.quality.overall,
            "",
            "",
        )
        for face in faces
    ]
    names = truth.names()
    by_person: dict[str, list[str]] = defaultdict(list)
    for face_id, identity in sorted(truth.identify(found).items()):
        if identity in names:
            by_person[names[identity]].append(face_id)
    return by_person


async def test_answers_are_the_same_in_either_space_and_never_of_both(
    turned: NextModel, library: Library, base: Foundation, pack: ModelInfo
) -> None:
    before = await library.ask()
    assert len(before.suggested) > 4
    assert len(before.found) > 4
    assert before.groups
    refused, person_id = min(before.suggested)
    await library.kith.exclude(refused, str(person_id))
    before = await library.ask()
    assert (refused, person_id) not in before.suggested
    stored = await library.kith.list_centroids()

    moving = Moving(turned.client)
    migration = await moving.embed_all(turned.version)
    assert await library.ask() == before, "a model beside the active one changes nothing"
    moved = await moving.cut_over(migration)
    assert [state for _, state, _ in await moving.models()] == ["ACTIVE", "RETIRED"]
    assert (await moving.models())[0][0] == turned.version

    # The centroids of the old space are none of the new one's.
    assert await library.kith.list_centroids() == []
    after = await library.ask()
    assert after.suggested == before.suggested
    assert after.found == pytest.approx(before.found, abs=5e-3)
    assert after.groups == before.groups
    assert await library.centroid_models() == sorted([pack.version, turned.version] * len(library.persons))

    back = await moving.roll_back(moved)
    assert not back.HasField("cut_over_time")
    assert await library.kith.list_centroids() == stored
    assert await library.ask() == before
    again = await moving.cut_over(back)
    assert await library.ask() == after
    assert again.HasField("cut_over_time")


async def test_a_session_under_way_ends_under_the_new_model(
    detection: DetectionClient,
    turned: NextModel,
    running: Running,
    base: Foundation,
    stack: AsyncExitStack,
    album: Album,
    pack: ModelInfo,
) -> None:
    worker = await start_worker(running.settings, stack)
    early = await detect(detection, {"early": album.uri(1)})
    moving = Moving(turned.client)
    migration = await moving.embed_all(turned.version)
    await worker.drain()

    late = {f"late-{n:02d}": album.uri(n) for n in range(24)}
    await detection.register(late)
    looker = HeldLooker(ActiveLooker(base.database, open_fleets(running.settings, stack)), 18)
    session = await detection.create_session(list(late))
    work = asyncio.create_task(build_executor(base, looker).run_slice(UUID(session.job.id), 0))
    await looker.reached.wait()

    async def stored() -> bool:
        return (await detection.get_session(session.id)).job.progress.done == 16

    await eventually(stored)
    half_way = [UUID(face.id) for face in await detection.list_faces()]
    # What the session has stored so far has vectors of the old model only.
    moved = await moving.cut_over(migration, allow_missing=True)
    assert moved.faces - moved.faces_embedded == len(half_way) - len(early)
    looker.release()
    await work
    held = await detection.get_session(session.id)
    assert held.job.state == jobs_pb2.JOB_STATE_RUNNING
    assert held.job.progress.done == 16, "what the old model saw is not stored any more"

    await running.worker(start_worker)
    ended = await detection.wait_session(session.id)
    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert ended.photos_failed == 0
    new, old = await read_vectors(base, turned.version), await read_vectors(base, pack.version)
    faces = [UUID(face.id) for face in await detection.list_faces()]
    assert old.keys() == set(half_way)
    assert new.keys() == set(faces) - set(half_way) | set(early)
    # And what was allowed to be missing is made up for.
    mended = await moving.embed_all(turned.version)
    assert mended.faces_embedded == len(faces)
    assert {face.model_version for face in await detection.list_faces()} == {turned.version}


async def test_libraries_move_one_by_one(
    detection: DetectionClient, turned: NextModel, running: Running, album: Album, pack: ModelInfo
) -> None:
    await running.worker(start_worker)
    await detect(detection, {"photo": album.uri(1)})
    moving = Moving(turned.client)
    await moving.cut_over(await moving.embed_all(turned.version))
    # The same worker, and no restart: this library's next photo is looked at by its new model ...
    await detect(detection, {"next": album.uri(1)})
    assert {face.model_version for face in await detection.list_faces()} == {turned.version}
    # ... and another library's first by the model new libraries begin with.
    await detection.assets.RegisterAssets(
        assets_pb2.RegisterAssetsRequest(library_id="other", assets=[assets_pb2.NewAsset(id="photo", uri=album.uri(1))])
    )
    request = sessions_pb2.CreateDetectionSessionRequest(
        library_id="other", assets=sessions_pb2.AssetIds(ids=["photo"])
    )
    job = (await detection.sessions.CreateDetectionSession(request)).session.job
    wait = jobs_pb2.WaitJobRequest(library_id="other", job_id=job.id)
    wait.timeout.FromSeconds(50)
    assert (await detection.jobs.WaitJob(wait, timeout=55)).job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    others = await detection.faces.ListFaces(faces_pb2.ListFacesRequest(library_id="other"))
    assert {face.model_version for face in others.faces} == {pack.version}


async def test_moving_needs_the_migration_as_it_stands(
    detection: DetectionClient, turned: NextModel, running: Running, album: Album
) -> None:
    await running.worker(start_worker)
    await detect(detection, {"photo": album.uri(1)})
    moving = Moving(turned.client)
    started = await moving.start(turned.version)
    ended = await moving.ended(started.id)
    with pytest.raises(EtagMismatch):
        # The report has come since.
        await moving.cut_over(started)
    with pytest.raises(PreconditionFailed, match="not cut over") as refused:
        await moving.roll_back(ended)
    assert refused.value.reason is Reason.MODEL_MISMATCH
    with pytest.raises(NotFound):
        await moving.cut_over(models_pb2.ModelMigration(id=str(uuid4()), etag="1"))
    with pytest.raises(InvalidRequest, match="etag"):
        await moving.cut_over(models_pb2.ModelMigration(id=ended.id))

    request_id = str(uuid4())
    moved = await moving.cut_over(ended, request_id=request_id)
    assert await moving.cut_over(ended, request_id=request_id) == moved
    with pytest.raises(PreconditionFailed, match="the library's model is") as refused:
        await moving.cut_over(moved)
    assert refused.value.metadata == {"expected": moved.from_model_version, "actual": turned.version}

    # A face found since has no vector of the old model.
    await detect(detection, {"next": album.uri(1)})
    with pytest.raises(PreconditionFailed, match="have no vector") as refused:
        await moving.roll_back(moved)
    assert refused.value.reason is Reason.MIGRATION_INCOMPLETE
    back = await moving.roll_back(moved, allow_missing=True)
    assert (back.faces, back.faces_embedded) == (2 * ended.faces, 2 * ended.faces)
    assert [state for _, state, _ in await moving.models()] == ["ACTIVE", "SHADOW"]


async def test_the_way_back_can_be_a_migration_too(
    detection: DetectionClient, turned: NextModel, running: Running, album: Album, pack: ModelInfo
) -> None:
    await running.worker(start_worker)
    await detect(detection, {"photo": album.uri(1)})
    moving = Moving(turned.client)
    there = await moving.cut_over(await moving.embed_all(turned.version))
    faces = await detect(detection, {"next": album.uri(1)})
    back = await moving.embed_all(pack.version)
    assert (back.from_model_version, back.to_model_version) == (turned.version, pack.version)
    assert back.faces_embedded == len(faces)
    await moving.cut_over(back)
    assert not (await moving.get(there.id)).HasField("cut_over_time"), "it is undone by the one the other way"
    assert {face.model_version for face in await detection.list_faces()} == {pack.version}
