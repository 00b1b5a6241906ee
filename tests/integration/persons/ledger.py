"""The whole state of a library, to compare before and after, and ids as the contract has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select

from shared.db.tables_persons import assignments, exclusions, persons, prototypes
from shared.foundation import Foundation


async def read_state(base: Foundation) -> dict[str, Any]:
    """Everything people consist of, without what every write changes (versions, times of writing, changes)."""
    async with base.database.snapshot() as tx:
        return {
            "persons": {
                row.person_id: (
                    row.name,
                    row.name_key,
                    row.status,
                    row.birth_year,
                    row.birth_month,
                    row.birth_day,
                    row.merged_into,
                    row.chosen_cover,
                    row.notes,
                    row.external_ids,
                    row.face_count,
                    row.first_seen,
                    row.last_seen,
                    row.cover_face_id,
                    row.deleted_at is not None,
                )
                for row in await tx.rows(select(persons))
            },
            "assignments": {
                row.face_id: (row.person_id, row.source, row.confidence, row.choice, row.assigned_at)
                for row in await tx.rows(select(assignments))
            },
            "exclusions": {
                (row.face_id, row.person_id): (row.exclusion_id, row.created_by, row.created_at)
                for row in await tx.rows(select(exclusions))
            },
            "prototypes": {
                row.face_id: (row.person_id, row.role, row.era, row.pinned) for row in await tx.rows(select(prototypes))
            },
        }


def ids(values: Sequence[UUID]) -> list[str]:
    """Ids as the contract has them."""
    return [str(value) for value in values]
