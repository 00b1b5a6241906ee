"""SQL of what a change did to faces and exclusions, read to be undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.engine import Row

from services.persons.domain.model import Hold, Source
from services.persons.repository.exclusions import Exclusion
from shared.db.engine import Transaction
from shared.db.tables_persons import change_exclusions, change_faces
from shared.faces.prototypes import Choice


@dataclass(frozen=True, slots=True)
class FaceItem:
    """Who held a face before a change and after it."""

    face_id: UUID
    before: Hold | None
    after: Hold | None


@dataclass(frozen=True, slots=True)
class ExclusionItem:
    """An exclusion that a change made, or took back."""

    exclusion: Exclusion
    made: bool


async def list_face_items(tx: Transaction, change_id: UUID) -> list[FaceItem]:
    """What a change did to faces, by face id."""
    rows = await tx.rows(
        select(change_faces).where(change_faces.c.change_id == change_id).order_by(change_faces.c.face_id)
    )
    return [
        FaceItem(
            row.face_id,
            to_hold(row, "before"),
            to_hold(row, "after"),
        )
        for row in rows
    ]


async def list_exclusion_items(tx: Transaction, change_id: UUID) -> list[ExclusionItem]:
    """The exclusions a change made or took back."""
    rows = await tx.rows(
        select(change_exclusions)
        .where(change_exclusions.c.change_id == change_id)
        .order_by(change_exclusions.c.face_id, change_exclusions.c.person_id)
    )
    return [
        ExclusionItem(Exclusion(row.exclusion_id, row.face_id, row.person_id, row.created_by, row.created_at), row.made)
        for row in rows
    ]


def to_hold(row: Row[Any], side: Literal["before", "after"]) -> Hold | None:
    """Who held a face before a change, and since when, or after it: of a row of ``change_faces``."""
    person_id = getattr(row, f"{side}_person")
    if person_id is None:
        return None
    choice = getattr(row, f"{side}_choice")
    return Hold(
        person_id=person_id,
        source=Source(getattr(row, f"{side}_source")),
        confidence=getattr(row, f"{side}_confidence"),
        choice=Choice(choice) if choice else None,
        assigned_at=row.before_assigned_at if side == "before" else None,
    )
