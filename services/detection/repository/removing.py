"""SQL that takes photos away, and locks what PostgreSQL's cascades will take with them.

Locks are taken in one order everywhere: photos by id, faces by id, persons by id, suggestions by (face, person), and the
outbox last. A cascade locks rows in the order it meets them, so every row that others lock in order is locked before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, func, select, union

from shared.db.engine import Transaction
from shared.db.tables_detection import assets, faces
from shared.db.tables_persons import assignments, persons
from shared.db.tables_suggestions import suggestions
from shared.errors import Contention

_LOOKS = 4


async def lock_photos_to_delete(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> set[str]:
    """Lock photos against every other writer, in order of id; answers which are there."""
    rows = await tx.rows(
        select(assets.c.asset_id)
        .where(assets.c.library_id == library_id, assets.c.asset_id == func.any(list(asset_ids)))
        .order_by(assets.c.asset_id)
        .with_for_update()
    )
    return {row.asset_id for row in rows}


async def lock_faces_of(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> list[UUID]:
    """Lock every face of locked photos against change, in order of id, but not yet against being referred to."""
    rows = await tx.rows(
        select(faces.c.face_id)
        .where(faces.c.library_id == library_id, faces.c.asset_id == func.any(list(asset_ids)))
        .order_by(faces.c.face_id)
        .with_for_update(key_share=True)
    )
    return [row.face_id for row in rows]


async def lock_dependents(tx: Transaction, face_ids: Sequence[UUID]) -> list[UUID]:
    """Lock the persons and suggestions that the end of these locked faces changes; answers the persons, by id.

    A person loses an assignment, prototypes, or the cover. Only then the faces are locked against being referred to: who
    holds a person may be about to make one of them its cover, and must not wait for us while we wait for the person.
    Clustering keeps away by itself: whoever changes clusters holds the faces of all of them first. Raises
    :class:`Contention` if the faces go from person to person faster than those can be locked.
    """
    if not face_ids:
        return []
    gone = list(face_ids)
    touched = union(
        select(assignments.c.person_id).where(assignments.c.face_id == func.any(gone)),
        select(persons.c.person_id).where(persons.c.cover_face_id == func.any(gone)),
    )
    held: set[UUID] = set()
    wanted: set[UUID] | None = None
    for _ in range(_LOOKS):
        among = persons.c.person_id.in_(touched) if wanted is None else persons.c.person_id == func.any(list(wanted))
        rows = await tx.rows(
            select(persons.c.person_id).where(among).order_by(persons.c.person_id).with_for_update(key_share=True)
        )
        held |= {row.person_id for row in rows}
        # All the faces of a person may have been moved, by who held them both, while we waited.
        wanted = {row.person_id for row in await tx.rows(touched)} - held
        if not wanted:
            break
    else:
        raise Contention("these faces are being moved by others: try again")
    await tx.execute(
        select(faces.c.face_id).where(faces.c.face_id == func.any(gone)).order_by(faces.c.face_id).with_for_update()
    )
    await tx.execute(
        select(suggestions.c.suggestion_id)
        .where(suggestions.c.face_id == func.any(gone))
        .order_by(suggestions.c.face_id, suggestions.c.person_id)
        .with_for_update()
    )
    return sorted(held)


async def delete_photos(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> None:
    """Remove locked photos that have no face any more."""
    await tx.execute(
        delete(assets).where(assets.c.library_id == library_id, assets.c.asset_id == func.any(list(asset_ids)))
    )


async def list_holders(tx: Transaction, library_id: str, asset_ids: Sequence[str]) -> list[UUID]:
    """Everybody who has a face on these photos."""
    rows = await tx.rows(
        select(assignments.c.person_id)
        .join(faces, faces.c.face_id == assignments.c.face_id)
        .where(faces.c.library_id == library_id, faces.c.asset_id == func.any(list(asset_ids)))
        .distinct()
    )
    return [row.person_id for row in rows]
