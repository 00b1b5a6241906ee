"""What the other services make of a face that was put aside after they had come to know it; over real gRPC."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from kith.detection.v1 import faces_pb2
from kith.jobs.v1 import jobs_pb2
from kith.persons.v1 import persons_pb2
from kith.suggestions.v1 import suggestions_pb2
from shared.errors import PreconditionFailed, Reason
from shared.foundation import Foundation
from tests.integration.clustering.conftest import grouping_here
from tests.integration.clustering.kit import Kith, seed_cluster, start_kith
from tests.integration.conftest import Running
from tests.integration.detection.client import DetectionClient
from tests.integration.detection.known import set_state
from tests.integration.library import SeededFaces
from tests.integration.suggestions.album import Person, draw_people, seed_library
from tests.integration.suggestions.conftest import Questions, start_questions

__all__ = ["grouping_here"]

ACTIVE, IGNORED = faces_pb2.FACE_STATE_ACTIVE, faces_pb2.FACE_STATE_IGNORED
NOT_A_FACE = faces_pb2.FACE_STATE_NOT_A_FACE
EACH = 8


class Album:
    """Two people of eight faces: Ada has four of hers, the rest of hers is asked about; the other's are a cluster."""

    def __init__(self, kith: Kith, questions: Questions, seeded: SeededFaces, ada: Person, cluster_id: str) -> None:
        self.kith = kith
        self.questions = questions
        self.face_ids = seeded.face_ids
        self.asked = seeded.face_ids[4:EACH]
        self.grouped = seeded.face_ids[EACH:]
        self.ada = ada
        self.cluster_id = cluster_id


@pytest.fixture
async def album(detection: DetectionClient, running: Running, base: Foundation) -> Album:
    seeded = await seed_library(base, draw_people(2, EACH))
    kith = await start_kith(running)
    questions = await start_questions(running, base)
    ada = Person(UUID(await kith.create("Ada")), "Ada")
    await kith.assign(seeded.face_ids[:4], str(ada.person_id))
    cluster_id = await seed_cluster(base, seeded.face_ids[EACH:])
    await questions.find_more(ada)
    return Album(kith, questions, seeded, ada, cluster_id)


async def test_questions_about_a_face_put_aside_are_not_asked(album: Album, detection: DetectionClient) -> None:
    questions = album.questions
    assert await questions.pairs() == {(face_id, album.ada.person_id) for face_id in album.asked}
    hidden, other = album.asked[:2]
    asked = next(each for each in await questions.list() if each.face_id == str(hidden))
    await set_state(detection, str(hidden), NOT_A_FACE)
    left = {(face_id, album.ada.person_id) for face_id in album.asked if face_id != hidden}
    assert await questions.pairs() == left
    assert await questions.pairs(person_id=str(album.ada.person_id)) == left
    assert await questions.pairs(face_id=str(hidden)) == set()
    stats = await questions.suggestions.GetSuggestionStats(suggestions_pb2.GetSuggestionStatsRequest())
    assert stats.pending == len(left)
    with pytest.raises(PreconditionFailed) as caught:
        await questions.accept(asked.id, request_id=str(uuid4()))
    assert caught.value.reason is Reason.FACE_NOT_ACTIVE
    assert caught.value.metadata == {"face_id": str(hidden), "state": "NOT_A_FACE"}

    # Nor are they found again, nor counted against what may be asked at once.
    await set_state(detection, str(other), IGNORED)
    await questions.find_more(album.ada)
    left = {(face_id, album.ada.person_id) for face_id in album.asked[2:]}
    assert await questions.pairs() == left

    for face_id in (hidden, other):
        await set_state(detection, str(face_id), ACTIVE)
    assert await questions.pairs() == {(face_id, album.ada.person_id) for face_id in album.asked}
    accepted = await questions.accept(asked.id, request_id=str(uuid4()))
    assert accepted.suggestion.state == suggestions_pb2.SUGGESTION_STATE_ACCEPTED


async def test_a_face_put_aside_is_in_no_cluster_until_it_is_taken_back(
    album: Album, detection: DetectionClient, base: Foundation
) -> None:
    kith = album.kith
    (before,) = await kith.list_clusters()
    hidden = before.cover_face_id
    assert before.face_count == EACH
    await set_state(detection, hidden, IGNORED)
    (now,) = await kith.list_clusters()
    assert (now.face_count, now.etag != before.etag, now.cover_face_id != hidden) == (EACH - 1, True, True)
    assert hidden not in {member.face_id for member in await kith.members(album.cluster_id)}
    in_cluster = faces_pb2.ListFacesRequest(cluster_id=album.cluster_id, states=[ACTIVE, IGNORED])
    listed = (await detection.faces.ListFaces(in_cluster)).faces
    assert [face.id for face in listed] == sorted(str(face_id) for face_id in album.grouped if str(face_id) != hidden)
    face = (await detection.faces.GetFace(faces_pb2.GetFaceRequest(face_id=hidden))).face
    assert face.cluster_id == ""
    stats = await detection.faces.GetFaceStats(faces_pb2.GetFaceStatsRequest())
    assert (stats.assigned, stats.clustered, stats.unknown, stats.ignored) == (4, EACH - 1, 4, 1)
    page = await kith.people.ListPeople(persons_pb2.ListPeopleRequest())
    entry = next(each for each in page.people if each.cluster_id)
    assert entry.face_count == EACH - 1
    assert entry.cover_face_id not in {"", hidden}
    taken_back = await set_state(detection, hidden, ACTIVE)
    assert taken_back.cluster_id == album.cluster_id
    assert (await kith.list_clusters()) == [before]


async def test_no_run_groups_and_no_label_assigns_a_face_put_aside(
    album: Album, detection: DetectionClient, grouping_here: None
) -> None:
    kith, hidden = album.kith, str(album.grouped[0])
    await set_state(detection, hidden, NOT_A_FACE)
    job = await kith.cluster(min_cluster_size=3)
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert dict(job.result)["faces"] == 2 * EACH - 4 - 1
    grouped = {member.face_id for cluster in await kith.list_clusters() for member in await kith.members(cluster.id)}
    assert hidden not in grouped
    cluster = next(each for each in await kith.list_clusters() if each.face_count >= EACH - 1)
    labelled = await kith.label(cluster.id, new_person_name="Ben", etag=cluster.etag)
    assert labelled.faces_assigned == EACH - 1
    assert not labelled.failures
    face = (await detection.faces.GetFace(faces_pb2.GetFaceRequest(face_id=hidden))).face
    assert face.person_id == ""
