"""PrototypeService in short words, and people with as many faces as a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import update

from kith.common.v1 import types_pb2
from kith.persons.v1 import prototypes_pb2 as pb
from shared.db.tables_detection import assets
from shared.faces.embeddings import normalise
from shared.foundation import Foundation
from tests.integration.library import SeededFaces, seed_faces
from tests.integration.persons.client import PersonsClient, ask


class Prototypes(PersonsClient):
    """The persons server, with short words for PrototypeService."""

    async def list(self, person_id: str) -> list[pb.Prototype]:
        return list((await self.prototypes.ListPrototypes(pb.ListPrototypesRequest(person_id=person_id))).prototypes)

    async def find(self, person_id: str, face_id: object) -> pb.Prototype | None:
        return next((row for row in await self.list(person_id) if row.face_id == str(face_id)), None)

    async def choose(self, face_id: object, request_id: str = "") -> pb.CreatePrototypeResponse:
        request = pb.CreatePrototypeRequest(face_id=str(face_id), request_id=request_id)
        return await ask(self.prototypes.CreatePrototype(request))

    async def refuse(self, face_id: object) -> pb.DeletePrototypeResponse:
        return await ask(self.prototypes.DeletePrototype(pb.DeletePrototypeRequest(face_id=str(face_id))))

    async def pin(self, face_id: object) -> pb.PinPrototypeResponse:
        return await ask(self.prototypes.PinPrototype(pb.PinPrototypeRequest(face_id=str(face_id))))

    async def unpin(self, face_id: object) -> pb.UnpinPrototypeResponse:
        return await ask(self.prototypes.UnpinPrototype(pb.UnpinPrototypeRequest(face_id=str(face_id))))

    async def recompute(self, person_id: str) -> pb.RecomputePrototypesResponse:
        return await ask(self.prototypes.RecomputePrototypes(pb.RecomputePrototypesRequest(person_id=person_id)))

    async def coverage(self, person_id: str) -> dict[int, tuple[int, int, bool]]:
        answer = await ask(self.prototypes.GetEraCoverage(pb.GetEraCoverageRequest(person_id=person_id)))
        assert len({row.era for row in answer.eras}) == len(answer.eras)
        return {row.era: (row.face_count, row.prototype_count, row.pinned) for row in answer.eras}


def likes(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Faces of one person: (count, 32), each different, all alike."""
    random = np.random.default_rng(seed)
    return normalise(random.standard_normal(32) + 0.7 * random.standard_normal((count, 32)))


async def seed_person(
    base: Foundation,
    kith: Prototypes,
    count: int,
    *,
    qualities: Sequence[float] | None = None,
    born: int = 0,
    moments: Sequence[datetime] = (),
) -> tuple[str, SeededFaces]:
    """A person with ``count`` faces in photos a day apart from 1 January 2020, the first ones at ``moments``; born in the
    middle of a year, if in any.
    """
    seeded = await seed_faces(base, likes(count), qualities=qualities)
    async with base.database.transaction() as tx:
        for asset_id, moment in zip(seeded.asset_ids, moments, strict=False):
            await tx.execute(update(assets).where(assets.c.asset_id == asset_id).values(captured_at=moment))
    date = types_pb2.Date(year=born, month=7, day=1) if born else None
    return await kith.create("Ada", seeded.face_ids, birth_date=date), seeded
