"""Locking faces and the persons who hold them, and reading what decides whether a face may go somewhere.

Locks are taken in one order everywhere: faces by id, then persons by id. So of many writers of one face one goes first and the
others see what it did, and no two wait for each other. All the faces of a person may be moved under that person's lock alone
(a merge of a hundred thousand faces need not lock each): whoever locked a face therefore looks again, once it holds the lock of
the person who had it.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Uuid, and_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from services.persons.domain.model import Assignment, FaceStanding, Person
from services.persons.repository.moves import HOLD_COLUMNS, to_assignment
from services.persons.repository.persons import lock_persons
from shared.db.engine import Transaction
from shared.db.query import Query
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments, exclusions, prototypes
from shared.errors import Contention, NotFound, PreconditionFailed, Reason

_LOOKS = 4


async def lock_standings(
    tx: Transaction,
    library_id: str,
    face_ids: Collection[UUID],
    person_ids: Collection[UUID],
    target: UUID | None = None,
) -> tuple[dict[UUID, FaceStanding], dict[UUID, Person]]:
    """Lock faces, everybody who holds one of them, and ``person_ids``; answers with both as they are then.

    Whether a face is excluded is told of ``target``. Faces and persons of other libraries are left out. Three statements
    where nobody holds the faces, whatever their number. Raises :class:`Contention` if the faces go from hand to hand faster
    than they can be locked.
    """
    await tx.rows(_LOCK_FACES, {"library_id": library_id, "face_ids": list(face_ids)})
    # Read only now: under READ COMMITTED this statement sees what the writers we waited for have done.
    standings = await _read_standings(tx, library_id, face_ids, target)
    locked: dict[UUID, Person] = {}
    for _ in range(_LOOKS):
        wanted = {*person_ids, *_holders(standings)}
        locked |= await lock_persons(tx, library_id, wanted - locked.keys())
        if not _holders(standings):
            return standings, locked
        standings = await _read_standings(tx, library_id, face_ids, target)
        if _holders(standings) <= locked.keys():
            return standings, locked
    raise Contention("these faces are being moved by others: try again")


async def lock_held(tx: Transaction, library_id: str, face_id: UUID) -> tuple[Assignment, Person]:
    """Lock a face and whoever holds it. Raises :class:`NotFound`, and :class:`PreconditionFailed` with FACE_NOT_ASSIGNED."""
    standings, people = await lock_standings(tx, library_id, [face_id], [])
    standing = standings.get(face_id)
    if standing is None:
        raise NotFound("face", str(face_id))
    held = standing.assignment
    if held is None:
        raise PreconditionFailed(
            f"face '{face_id}' has no person", reason=Reason.FACE_NOT_ASSIGNED, metadata={"face_id": str(face_id)}
        )
    return held, people[held.person_id]


def _holders(standings: dict[UUID, FaceStanding]) -> set[UUID]:
    return {standing.assignment.person_id for standing in standings.values() if standing.assignment}


async def _read_standings(
    tx: Transaction, library_id: str, face_ids: Collection[UUID], target: UUID | None
) -> dict[UUID, FaceStanding]:
    rows = await tx.rows(_READ_STANDINGS, {"library_id": library_id, "face_ids": list(face_ids), "target": target})
    return {
        row.face_id: FaceStanding(
            face_id=row.face_id,
            state=row.state,
            excluded=row.exclusion_id is not None,
            assignment=to_assignment(row) if row.person_id is not None else None,
        )
        for row in rows
    }


_NAMED = (
    faces.c.library_id == bindparam("library_id"),
    faces.c.face_id == func.any(bindparam("face_ids", type_=ARRAY(Uuid()))),
)

_LOCK_FACES = Query(select(faces.c.face_id).where(*_NAMED).order_by(faces.c.face_id).with_for_update(key_share=True))

_READ_STANDINGS = Query(
    select(faces.c.face_id, faces.c.state, exclusions.c.exclusion_id, *HOLD_COLUMNS)
    .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
    .outerjoin(exclusions, and_(exclusions.c.face_id == faces.c.face_id, exclusions.c.person_id == bindparam("target")))
    .where(*_NAMED)
)


async def list_faces_in_photos(
    tx: Transaction, library_id: str, person_id: UUID, asset_ids: Collection[str]
) -> dict[str, list[UUID]]:
    """The faces a person holds in each of these photos, by id; photos that are not registered are left out."""
    held = and_(assignments.c.face_id == faces.c.face_id, assignments.c.person_id == person_id)
    rows = await tx.rows(
        select(assets.c.asset_id, assignments.c.face_id)
        .outerjoin(
            faces.join(assignments, held),
            and_(faces.c.library_id == assets.c.library_id, faces.c.asset_id == assets.c.asset_id),
        )
        .where(assets.c.library_id == library_id, assets.c.asset_id == func.any(list(asset_ids)))
        .order_by(assets.c.asset_id, assignments.c.face_id)
    )
    found: dict[str, list[UUID]] = {row.asset_id: [] for row in rows}
    for row in rows:
        if row.face_id is not None:
            found[row.asset_id].append(row.face_id)
    return found


async def check_face(tx: Transaction, library_id: str, face_id: UUID) -> None:
    """Raise :class:`NotFound` if the library has no such face."""
    known = select(faces.c.face_id).where(faces.c.library_id == library_id, faces.c.face_id == face_id)
    if await tx.scalar(known) is None:
        raise NotFound("face", str(face_id))


async def list_exemplified(tx: Transaction, face_ids: Collection[UUID]) -> set[UUID]:
    """The persons for whom one of these faces is a prototype."""
    if not face_ids:
        return set()
    rows = await tx.rows(select(prototypes.c.person_id).where(prototypes.c.face_id == func.any(list(face_ids))))
    return {row.person_id for row in rows}
