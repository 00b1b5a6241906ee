"""SQL of the ledger's entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Uuid, bindparam, exists, func, insert, select, text, update

from services.persons.domain.model import Change, PersonsDeps
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.notify import Channel, notify
from shared.db.query import Query
from shared.db.tables_persons import changes
from shared.db.tables_shared import jobs

SHOWN_FACES: Final = 500
"""So many of a change's faces are on its own row; the rest only in ``change_faces`` and ``change_exclusions``."""


async def record_change(tx: Transaction, deps: PersonsDeps, library_id: str, change: Change, caller: Caller) -> UUID:
    """Enter a change, in the transaction that makes it."""
    change_id = deps.ids.new_uuid()
    await tx.rows(
        _RECORD,
        {
            "change_id": change_id,
            "library_id": library_id,
            "kind": change.kind.value,
            "actor": caller.subject,
            "reason": change.reason,
            "rpc": caller.rpc,
            "request_id": caller.request_id,
            "person_ids": sorted(change.person_ids),
            "face_ids": list(change.face_ids[:SHOWN_FACES]),
            "face_count": len(change.face_ids),
            "before": change.before,
            "after": change.after,
            "undoes": change.undoes,
            "created_at": deps.clock.now(),
        },
    )
    await notify(tx, Channel.CHANGES, library_id)
    return change_id


_RECORD = Query(
    insert(changes).values(
        {
            name: bindparam(name, type_=changes.c[name].type)
            for name in (
                "change_id",
                "library_id",
                "kind",
                "actor",
                "reason",
                "rpc",
                "request_id",
                "person_ids",
                "face_ids",
                "face_count",
                "before",
                "after",
                "undoes",
                "created_at",
            )
        }
    )
)


async def fill_change(tx: Transaction, change_id: UUID, face_ids: Sequence[UUID]) -> None:
    """Enter that a locked change has touched more faces, which it had not touched before."""
    shown = func.array_cat(changes.c.face_ids, list(face_ids[:SHOWN_FACES]), type_=changes.c.face_ids.type)
    await tx.execute(
        update(changes)
        .where(changes.c.change_id == change_id)
        .values(face_count=changes.c.face_count + len(face_ids), face_ids=shown[1:SHOWN_FACES])
    )


async def mark_undone(tx: Transaction, undone: UUID, by: UUID) -> None:
    """Enter that ``by`` has undone a change that is locked with the chain of those it undoes.

    If that was an undo itself, what it undid stands again; and if that was one too, what it undid is undone again; and so on.
    """
    await tx.rows(_MARK_UNDONE, {"undone": undone, "by_change": by})


_MARK_UNDONE = Query(
    text(
        """
    WITH RECURSIVE chain AS (
        SELECT change_id, undoes, 0 AS depth, :by_change AS undone_by FROM changes WHERE change_id = :undone
        UNION ALL
        SELECT c.change_id, c.undoes, chain.depth + 1, chain.change_id
        FROM chain JOIN changes c ON c.change_id = chain.undoes
    )
    UPDATE changes SET undone_by = CASE WHEN chain.depth % 2 = 0 THEN chain.undone_by END
    FROM chain WHERE changes.change_id = chain.change_id
    """
    ).bindparams(bindparam("undone", type_=Uuid()), bindparam("by_change", type_=Uuid()))
)


async def has_open_job(tx: Transaction, library_id: str, change_id: UUID) -> bool:
    """Whether a job that fills this change has not ended."""
    filling = exists().where(
        jobs.c.library_id == library_id,
        jobs.c.state.in_(["QUEUED", "RUNNING", "PAUSED"]),
        jobs.c.spec["change_id"].astext == str(change_id),
    )
    return bool(await tx.scalar(select(filling)))


async def find_deletion(tx: Transaction, library_id: str, person_id: UUID) -> UUID | None:
    """The latest change that put a person away and stands, whatever its kind; None if that was to forget them."""
    found: UUID | None = await tx.scalar(
        select(changes.c.change_id)
        .where(
            changes.c.library_id == library_id,
            changes.c.person_ids.contains([person_id]),
            changes.c.after.contains({"persons": {str(person_id): {"deleted": True}}}),
            changes.c.undone_by.is_(None),
        )
        .order_by(changes.c.change_id.desc())
        .limit(1)
    )
    return found
