"""Saying who a cluster is: its faces become a person's, and the cluster ends.

The faces are written by the persons service, so this is work in three steps: choose the faces (and remember the choice under
the request's id), let persons write them or start the job that does, end the cluster. A retry after a crash between the steps
finds the same choice and calls persons with the same ids, so it finishes the same work and doubles nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

from services.clustering.domain.model import ClusteringDeps
from services.clustering.domain.ports import People
from services.clustering.repository.clusters import get_cluster, get_unchanged, list_member_ids, remove_members
from services.clustering.repository.locks import hold_faces, lock_clusters
from shared.db.engine import Database, Transaction
from shared.db.idempotency import RequestKey, claim_request, make_request_key, store_answer
from shared.db.outbox import queue_faces
from shared.errors import InvalidRequest
from shared.jobs.model import ItemFailure

MAX_EXCEPTED = 500
# What persons takes in one call, and makes one change of.
MAX_FACES = 200_000


@dataclass(frozen=True, slots=True)
class LabelCluster:
    """A cluster and whose it is: ``person_id``, or None for a new person by ``new_person_name``."""

    library_id: str
    cluster_id: str
    person_id: UUID | None
    new_person_name: str
    etag: str
    except_face_ids: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class FaceChoice:
    """Faces of a cluster that are the person's, and those that stay behind; both in order of id."""

    chosen: Sequence[UUID]
    excepted: Sequence[UUID]

    def encode(self) -> bytes:
        """As it is remembered."""
        return json.dumps([[str(face_id) for face_id in part] for part in (self.chosen, self.excepted)]).encode()

    @classmethod
    def decode(cls, data: bytes) -> FaceChoice:
        """What :meth:`encode` made."""
        chosen, excepted = ([UUID(face_id) for face_id in part] for part in json.loads(data))
        return cls(chosen, excepted)


@dataclass(frozen=True, slots=True)
class FacesLabelled:
    """What persons made of the choice, or by which job it will."""

    choice: FaceChoice
    person_id: UUID
    assigned: Sequence[UUID]
    failures: Sequence[ItemFailure]
    job_id: UUID | None


async def label_faces(
    database: Database, deps: ClusteringDeps, people: People, command: LabelCluster, request_id: UUID | None
) -> FacesLabelled:
    """Assign the faces of a cluster; with no transaction open, since persons is called.

    Raises :class:`NotFound` for the cluster or the person, :class:`ClusterChanged`, and :class:`InvalidRequest`, also for a
    cluster of more than 200,000 faces.
    """
    root = request_id or deps.ids.new_uuid()
    key = None
    if request_id is not None:
        step = uuid5(root, "choice")
        key = make_request_key(command.library_id, step, "LabelCluster.choice", repr(command).encode())
    async with database.transaction() as tx:
        choice = await _choose_faces(tx, deps, command, key)
    person_id = command.person_id
    if person_id is None:
        person_id = await people.create_person(command.library_id, command.new_person_name, uuid5(root, "person"))
    answer = await people.assign_faces(
        command.library_id,
        choice.chosen,
        person_id,
        f"label of cluster {command.cluster_id}",
        uuid5(root, "faces"),
    )
    return FacesLabelled(choice, person_id, answer.face_ids, answer.failures, answer.job_id)


async def end_cluster(tx: Transaction, deps: ClusteringDeps, command: LabelCluster, labelled: FacesLabelled) -> None:
    """Take the faces that were labelled out of their cluster, which ends with them.

    If a run has put other faces into it since they were chosen, those stay.
    """
    await lock_clusters(tx, command.library_id)
    await hold_faces(tx, command.library_id, cluster_id=command.cluster_id)
    choice = labelled.choice
    gone = [face_id for face_id, live in (await _members(tx, command)).items() if not live]
    removed = await remove_members(
        tx, deps.clock, command.library_id, command.cluster_id, [*choice.chosen, *choice.excepted, *gone]
    )
    # Faces that have a person now were queued by persons. Those of a job may never get one.
    await queue_faces(tx, deps.clock, command.library_id, set(removed) - set(labelled.assigned))


async def _choose_faces(
    tx: Transaction, deps: ClusteringDeps, command: LabelCluster, key: RequestKey | None
) -> FaceChoice:
    if key is not None:
        remembered = await claim_request(tx, key, deps.clock)
        if remembered is not None:
            return FaceChoice.decode(remembered)
    if command.etag:
        await get_unchanged(tx, command.library_id, command.cluster_id, command.etag)
    else:
        await get_cluster(tx, command.library_id, command.cluster_id)
    members = await _members(tx, command)
    excepted = set(command.except_face_ids)
    for index, face_id in enumerate(command.except_face_ids):
        if face_id not in members:
            field = f"except_face_ids[{index}]"
            raise InvalidRequest(f"{field}: face '{face_id}' is not in this cluster", field=field)
    chosen = [face_id for face_id, live in members.items() if live and face_id not in excepted]
    if not chosen:
        raise InvalidRequest("except_face_ids leaves no face to assign", field="except_face_ids")
    if len(chosen) > MAX_FACES:
        raise InvalidRequest(f"a cluster of more than {MAX_FACES} faces has to be split first", field="cluster_id")
    choice = FaceChoice(chosen, sorted(excepted))
    if key is not None:
        await store_answer(tx, key, choice.encode())
    return choice


async def _members(tx: Transaction, command: LabelCluster) -> dict[UUID, bool]:
    return await list_member_ids(tx, command.library_id, command.cluster_id)
