"""What an estimate of completeness reads besides the people: how many faces a person has, and what answers have taught."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select

from shared.db.engine import Transaction
from shared.db.tables_persons import persons
from shared.db.tables_suggestions import reviews


async def count_faces(tx: Transaction, person_id: UUID) -> int:
    """How many faces a person has."""
    found: int = await tx.scalar(select(persons.c.face_count).where(persons.c.person_id == person_id))
    return found


async def measure_answers(tx: Transaction, library_id: str, model_version: str) -> float:
    """What a library's answers in one embedding space tell of the level of its calibration: Fisher's information.

    The sum of c * (1 - c) over the answers, c the confidence each was asked with; an answer of a question that was even tells
    1/4, one that was sure next to nothing.
    """
    told = func.sum(reviews.c.confidence * (1 - reviews.c.confidence))
    found = await tx.scalar(
        select(func.coalesce(told, 0.0)).where(
            reviews.c.library_id == library_id, reviews.c.evidence["model_version"].astext == model_version
        )
    )
    return float(found)
