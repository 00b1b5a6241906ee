"""SQL that takes a person out of the ledger. That something was done, when and by whom, stays; what it was goes.

Where a change touched others too, what it did to them stays, and can be undone as before: a face that came to them from the
person came from nobody now. A change that says of somebody else that they were part of the person can never be undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, Uuid, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from services.persons.domain.model import ChangeKind
from services.persons.repository.changes import SHOWN_FACES
from shared.db.engine import Transaction
from shared.db.tables_persons import changes

_UUIDS = ARRAY(Uuid())


@dataclass(frozen=True, slots=True)
class LedgerScrubbed:
    """How many rows of each of the ledger's tables lost something."""

    changes: int
    change_faces: int
    change_exclusions: int


async def list_former_names(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> set[str]:
    """Every name the ledger remembers of these persons."""
    rows = await tx.rows(_NAMES, {"library_id": library_id, "person_ids": list(person_ids)})
    return {row.name for row in rows}


async def lock_changes_about(
    tx: Transaction, library_id: str, person_ids: Sequence[UUID], *, faces: int, limit: int
) -> list[UUID]:
    """The next changes that touched these persons, locked: up to ``limit``, and up to ``faces`` faces unless one has more.

    First those that name them, found by an index; then those that do not, as version N-1 entered some undos: once, as that
    reads all of the ledger.
    """
    asked = {"library_id": library_id, "person_ids": list(person_ids), "faces": faces, "limit": limit}
    rows = await tx.rows(_NEXT, asked) or await tx.rows(_NEXT_UNNAMED, asked)
    found = [row.change_id for row in rows]
    await tx.execute(
        select(changes.c.change_id)
        .where(changes.c.change_id == func.any(found))
        .order_by(changes.c.change_id)
        .with_for_update(key_share=True)
    )
    return found


async def scrub_changes(tx: Transaction, person_ids: Sequence[UUID], change_ids: Sequence[UUID]) -> LedgerScrubbed:
    """Take these persons out of locked changes."""
    about: dict[str, Any] = {"person_ids": list(person_ids), "change_ids": list(change_ids)}
    before = await tx.execute(_FACES_BEFORE, about)
    after = await tx.execute(_FACES_AFTER, about)
    await tx.execute(_FACES_OF_NOBODY, about)
    gone = await tx.execute(_EXCLUSIONS, about)
    names = [str(person_id) for person_id in person_ids]
    scrubbed = await tx.execute(_CHANGES, {**about, "names": names, "mention": "|".join(names), "shown": SHOWN_FACES})
    return LedgerScrubbed(scrubbed.rowcount, before.rowcount + after.rowcount, gone.rowcount)


async def count_in_ledger(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> dict[str, int]:
    """How many rows of the ledger's tables mention these persons, but for the entry that they were forgotten; reads it all."""
    names = [str(person_id) for person_id in person_ids]
    rows = await tx.rows(_COUNT, {"library_id": library_id, "person_ids": list(person_ids), "mention": "|".join(names)})
    return dict(rows[0]._mapping)


_NAMES = text(
    """
    SELECT DISTINCT fields #>> ARRAY['persons', p.id::text, 'name'] AS name
    FROM changes, unnest(:person_ids) AS p (id), unnest(ARRAY[before, after]) AS fields
    WHERE library_id = :library_id AND person_ids @> ARRAY[p.id]
        AND fields #>> ARRAY['persons', p.id::text, 'name'] IS NOT NULL
    """
).bindparams(bindparam("person_ids", type_=_UUIDS))


def _next(about: str) -> TextClause:
    return text(
        f"""
        SELECT change_id FROM (
            SELECT change_id, sum(face_count) OVER (ORDER BY change_id) - face_count AS faces_before FROM (
                SELECT change_id, face_count FROM changes
                WHERE library_id = :library_id AND kind <> '{ChangeKind.PERSON_FORGOTTEN}' AND {about}
                ORDER BY change_id LIMIT :limit
            ) AS following
        ) AS counted
        WHERE faces_before < :faces ORDER BY change_id
        """
    ).bindparams(bindparam("person_ids", type_=_UUIDS))


_NEXT = _next("person_ids && :person_ids")
_NEXT_UNNAMED = _next(
    """change_id IN (
        SELECT change_id FROM change_faces
        WHERE before_person = ANY(:person_ids) OR after_person = ANY(:person_ids)
        UNION
        SELECT change_id FROM change_exclusions WHERE person_id = ANY(:person_ids)
    )"""
)


def _about(statement: str) -> Any:
    return text(statement).bindparams(bindparam("person_ids", type_=_UUIDS), bindparam("change_ids", type_=_UUIDS))


_FACES_BEFORE = _about(
    """
    UPDATE change_faces SET before_person = NULL, before_source = NULL, before_confidence = NULL, before_choice = NULL,
        before_assigned_at = NULL
    WHERE change_id = ANY(:change_ids) AND before_person = ANY(:person_ids)
    """
)
_FACES_AFTER = _about(
    """
    UPDATE change_faces SET after_person = NULL, after_source = NULL, after_confidence = NULL, after_choice = NULL
    WHERE change_id = ANY(:change_ids) AND after_person = ANY(:person_ids)
    """
)
_FACES_OF_NOBODY = text(
    """
    DELETE FROM change_faces
    WHERE change_id = ANY(:change_ids) AND before_person IS NULL AND after_person IS NULL
    """
).bindparams(bindparam("change_ids", type_=_UUIDS))
_EXCLUSIONS = _about(
    "DELETE FROM change_exclusions WHERE change_id = ANY(:change_ids) AND person_id = ANY(:person_ids)"
)
_CHANGES = text(
    """
    WITH freed AS (
        SELECT c.change_id, c.person_ids <@ :person_ids AS theirs_alone,
            CASE WHEN c.before ? 'persons'
                THEN jsonb_set(c.before, '{persons}', (c.before -> 'persons') - :names) ELSE c.before END AS before,
            CASE WHEN c.after ? 'persons'
                THEN jsonb_set(c.after, '{persons}', (c.after -> 'persons') - :names) ELSE c.after END AS after
        FROM changes c WHERE c.change_id = ANY(:change_ids)
    ), judged AS (
        SELECT *, theirs_alone OR before::text ~ :mention OR after::text ~ :mention AS lost FROM freed
    )
    UPDATE changes c SET
        reason = '',
        person_ids = ARRAY(SELECT id FROM unnest(c.person_ids) AS p (id) WHERE id <> ALL(:person_ids) ORDER BY id),
        face_ids = ARRAY(SELECT face_id FROM touched(c.change_id) LIMIT :shown),
        face_count = (SELECT count(*) FROM touched(c.change_id)),
        before = CASE WHEN j.lost THEN '{}' ELSE j.before END,
        after = CASE WHEN j.lost THEN '{"forgotten": true}' ELSE j.after END
    FROM judged j WHERE j.change_id = c.change_id
    """.replace(
        "touched(c.change_id)",
        "(SELECT face_id FROM change_faces f WHERE f.change_id = c.change_id"
        " UNION SELECT face_id FROM change_exclusions e WHERE e.change_id = c.change_id) AS touched",
    )
).bindparams(
    bindparam("person_ids", type_=_UUIDS),
    bindparam("change_ids", type_=_UUIDS),
    bindparam("names", type_=ARRAY(Text())),
)
_COUNT = text(
    f"""
    WITH theirs AS (
        SELECT change_id, person_ids && :person_ids OR (before::text || after::text) ~ :mention OR reason ~ :mention AS named
        FROM changes WHERE library_id = :library_id AND kind <> '{ChangeKind.PERSON_FORGOTTEN}'
    )
    SELECT
        (SELECT count(*) FROM theirs WHERE named) AS changes,
        (SELECT count(*) FROM theirs JOIN change_faces f USING (change_id)
            WHERE f.before_person = ANY(:person_ids) OR f.after_person = ANY(:person_ids)) AS change_faces,
        (SELECT count(*) FROM theirs JOIN change_exclusions e USING (change_id)
            WHERE e.person_id = ANY(:person_ids)) AS change_exclusions
    """
).bindparams(bindparam("person_ids", type_=_UUIDS))
