"""SQL of what a change did to faces and exclusions, read to be undone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

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
            _hold(
                row.before_person, row.before_source, row.before_confidence, row.before_choice, row.before_assigned_at
            ),
            _hold(row.after_person, row.after_source, row.after_confidence, row.after_choice, None),
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


def _hold(
    person_id: UUID | None, source: str, confidence: float, choice: str | None, since: datetime | None
) -> Hold | None:
    if person_id is None:
        return None
    return Hold(person_id, Source(source), confidence, Choice(choice) if choice else None, since)
