"""A library to look for people in: photos, faces and embeddings by SQL, people through the persons service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from kith.common.v1 import types_pb2
from kith.persons.v1 import assignments_pb2, assignments_pb2_grpc, persons_pb2, persons_pb2_grpc
from shared.db.outbox import count_waiting
from shared.db.tables_detection import models
from shared.faces.calibration import Calibration
from shared.foundation import Foundation
from shared.vectors.relay import Relay
from tests.integration.conftest import eventually
from tests.integration.library import MODEL, SeededFaces, seed_faces

FLOOR = 0.3
CALIBRATION = Calibration(slope=20.0, intercept=-8.0)


@dataclass(frozen=True, slots=True)
class Person:
    """A person of the library."""

    person_id: UUID
    name: str


class People:
    """The persons service, as a test uses it."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.persons = persons_pb2_grpc.PersonServiceStub(channel)
        self.assignments = assignments_pb2_grpc.AssignmentServiceStub(channel)

    async def create(self, name: str, born: types_pb2.Date | None = None) -> Person:
        """A new person."""
        answer = await self.persons.CreatePerson(
            persons_pb2.CreatePersonRequest(
                person=persons_pb2.Person(name=name, birth_date=born), request_id=str(uuid4())
            )
        )
        return Person(UUID(answer.person.id), name)

    async def assign(self, person: Person, face_ids: Sequence[UUID]) -> None:
        """Give faces to a person, as a human."""
        request = assignments_pb2.BatchAssignFacesRequest(
            face_ids=[str(face_id) for face_id in face_ids], person_id=str(person.person_id), request_id=str(uuid4())
        )
        await self.assignments.BatchAssignFaces(request)

    async def unassign(self, face_id: UUID) -> None:
        """Take a face from its person, and leave it open whose it is."""
        await self.assignments.UnassignFace(assignments_pb2.UnassignFaceRequest(face_id=str(face_id)))

    async def exclude(self, person: Person, face_id: UUID) -> None:
        """Say that a face is not a person."""
        await self.assignments.ExcludeFace(
            assignments_pb2.ExcludeFaceRequest(face_id=str(face_id), person_id=str(person.person_id))
        )


def draw_people(people: int, each: int, *, likeness: float = 0.8, seed: int = 0) -> NDArray[np.float32]:
    """``each`` faces of every person in turn: (people * each, 64) unit vectors, cosine ``likeness``**2 within a person
    and about 0 between people.
    """
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(random.standard_normal((64, people)))[0].T.repeat(each, axis=0)
    noise = random.standard_normal(centres.shape)
    noise -= (noise * centres).sum(axis=1, keepdims=True) * centres
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(likeness * centres + np.sqrt(1 - likeness**2) * noise, dtype=np.float32)


async def seed_library(
    base: Foundation,
    vectors: NDArray[np.float32],
    *,
    qualities: Sequence[float] | None = None,
    faces_per_photo: int = 1,
) -> SeededFaces:
    """Faces of a library whose model carries a floor and a calibration."""
    async with base.database.transaction() as tx:
        await tx.execute(
            insert(models),
            {
                "library_id": "default",
                "model_version": MODEL,
                "pack": "test",
                "dimension": vectors.shape[1],
                "state": "ACTIVE",
                "thresholds": {"suggest_floor": FLOOR},
                "calibration": {"slope": CALIBRATION.slope, "intercept": CALIBRATION.intercept},
                "created_at": base.clock.now(),
            },
        )
    return await seed_faces(base, vectors, qualities=qualities, faces_per_photo=faces_per_photo)


async def wait_indexed(base: Foundation) -> None:
    """Wait until Qdrant shows what PostgreSQL says."""

    async def empty() -> bool:
        async with base.database.transaction() as tx:
            return (await count_waiting(tx))[0] == 0

    await eventually(empty, timeout_s=60)


async def relay_all(base: Foundation) -> None:
    """Make Qdrant show what PostgreSQL says, where no worker does."""
    relay = Relay(
        base.database,
        base.qdrant,
        base.collections,
        base.listener,
        base.clock,
        base.settings.relay,
        base.metrics,
    )
    while await relay.relay_batch():
        pass
