"""What people do with faces, as the persons service does it, and what there is of centroids after it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, func, select

from services.clustering.domain.model import ActiveModel, Centroid
from services.clustering.repository.centroids import list_centroids_of
from services.clustering.repository.unassigned import find_active_model
from services.persons.domain.assigning import AssignFaces, UnassignFace, assign_faces, unassign_face
from services.persons.domain.merging import MergePersons, merge_persons
from services.persons.domain.model import PersonsDeps
from services.persons.domain.people import CreatePerson, create_person
from services.persons.domain.putting_away import DeletePerson, UndeletePerson, delete_person, undelete_person
from services.persons.domain.undoing import Undo, undo_change
from services.persons.repository.persons import get_person
from shared.caller import Caller
from shared.db.tables_clustering import centroids_to_compute
from shared.db.tables_persons import assignments
from shared.foundation import Foundation

CALLER = Caller("test", "test", "")
INTERVAL_S = 5.0
# Past the interval, and what is added to it for faces.
LATER_S = 6.0


class People:
    """What people do with faces; each a transaction of the persons service's."""

    def __init__(self, base: Foundation) -> None:
        self._database = base.database
        self._deps = PersonsDeps(base.clock, base.ids, base.settings.persons)

    async def create(self, name: str, face_ids: Sequence[UUID] = ()) -> UUID:
        async with self._database.transaction() as tx:
            made = await create_person(tx, self._deps, CreatePerson("default", name), CALLER)
        if face_ids:
            await self.assign(made.person.person_id, face_ids)
        return made.person.person_id

    async def assign(self, person_id: UUID, face_ids: Sequence[UUID]) -> None:
        async with self._database.transaction() as tx:
            etags = await tx.rows(
                select(assignments.c.version).where(assignments.c.face_id == func.any(list(face_ids)))
            )
            etag = str(etags[0].version) if etags else ""
            await assign_faces(tx, self._deps, AssignFaces("default", face_ids, person_id, etag=etag), CALLER)

    async def unassign(self, face_id: UUID) -> UUID:
        async with self._database.transaction() as tx:
            return (await unassign_face(tx, self._deps, UnassignFace("default", face_id), CALLER)).change_id

    async def merge(self, survivor: UUID, merged: UUID) -> UUID:
        async with self._database.transaction() as tx:
            one, other = [await get_person(tx, "default", person_id) for person_id in (survivor, merged)]
            command = MergePersons("default", survivor, one.etag, merged, other.etag)
            return (await merge_persons(tx, self._deps, command, CALLER)).change_id

    async def undo(self, change_id: UUID) -> None:
        async with self._database.transaction() as tx:
            await undo_change(tx, self._deps, Undo("default", change_id), CALLER)

    async def delete(self, person_id: UUID) -> None:
        async with self._database.transaction() as tx:
            etag = (await get_person(tx, "default", person_id)).etag
            await delete_person(tx, self._deps, DeletePerson("default", person_id, etag), CALLER)

    async def undelete(self, person_id: UUID) -> None:
        async with self._database.transaction() as tx:
            await undelete_person(tx, self._deps, UndeletePerson("default", person_id), CALLER)


async def marks(base: Foundation) -> dict[UUID, int]:
    """Who waits, and under which number."""
    async with base.database.transaction() as tx:
        rows = await tx.rows(select(centroids_to_compute.c.person_id, centroids_to_compute.c.changes))
    return {row.person_id: row.changes for row in rows}


async def forget_marks(base: Foundation) -> None:
    async with base.database.transaction() as tx:
        await tx.execute(delete(centroids_to_compute))


async def find_model(base: Foundation) -> ActiveModel:
    async with base.database.transaction() as tx:
        model = await find_active_model(tx, "default")
    assert model is not None
    return model


async def stored(base: Foundation, *person_ids: UUID) -> list[Centroid]:
    model = await find_model(base)
    async with base.database.transaction() as tx:
        return await list_centroids_of(tx, "default", model, person_ids)
