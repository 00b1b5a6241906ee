"""The one way in which a face comes to a person, changes what is said of it, or leaves: a change's moves, in one statement.

The same statement enters into the ledger what each face had before, so that the two cannot differ; and it takes as long for
one face as PostgreSQL needs for one row, and for a hundred thousand faces as it needs for so many, without a round trip more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Uuid, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, REAL
from sqlalchemy.engine import Row
from sqlalchemy.types import Text

from services.persons.domain.model import Assignment, Move, Source
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.metadata import TIMESTAMP
from shared.db.query import Query
from shared.db.tables_persons import assignments
from shared.faces.prototypes import Choice

_STEPS = """
    entered AS (
        INSERT INTO change_faces (change_id, face_id,
            before_person, before_source, before_confidence, before_choice, before_assigned_at,
            after_person, after_source, after_confidence, after_choice)
        SELECT :change_id, t.face_id, a.person_id, a.source, a.confidence, a.choice, a.assigned_at,
            t.person_id, t.source, t.confidence, t.choice
        FROM target t LEFT JOIN assignments a ON a.face_id = t.face_id
        ON CONFLICT DO NOTHING
    ), stale AS (
        DELETE FROM prototypes p USING target t
        WHERE p.face_id = t.face_id AND p.person_id IS DISTINCT FROM t.person_id
    ), left_alone AS (
        DELETE FROM assignments a USING target t WHERE a.face_id = t.face_id AND t.person_id IS NULL
    ), changed AS (
        UPDATE assignments a SET person_id = t.person_id, source = t.source, confidence = t.confidence, choice = t.choice,
            version = nextval('assignment_versions'), change_id = :change_id, assigned_at = coalesce(t.since, :now)
        FROM target t WHERE a.face_id = t.face_id AND t.person_id IS NOT NULL
        RETURNING a.face_id, a.person_id, a.source, a.confidence, a.choice, a.version, a.assigned_at
    )
"""

_MOVE = Query(
    text(
        f"""
    WITH target AS (
        SELECT * FROM unnest(:face_ids, :person_ids, :sources, :confidences, :choices, :since)
            AS t (face_id, person_id, source, confidence, choice, since)
        WHERE :may_override
            OR NOT EXISTS (SELECT FROM exclusions e WHERE e.face_id = t.face_id AND e.person_id = t.person_id)
    ), {_STEPS}, added AS (
        INSERT INTO assignments
            (face_id, library_id, person_id, source, confidence, choice, version, change_id, assigned_at)
        SELECT t.face_id, :library_id, t.person_id, t.source, t.confidence, t.choice,
            nextval('assignment_versions'), :change_id, coalesce(t.since, :now)
        FROM target t
        WHERE t.person_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM assignments a WHERE a.face_id = t.face_id)
        RETURNING face_id, person_id, source, confidence, choice, version, assigned_at
    )
    SELECT * FROM changed UNION ALL SELECT * FROM added
    """
    ).bindparams(
        bindparam("face_ids", type_=ARRAY(Uuid())),
        bindparam("person_ids", type_=ARRAY(Uuid())),
        bindparam("sources", type_=ARRAY(Text())),
        bindparam("confidences", type_=ARRAY(REAL())),
        bindparam("choices", type_=ARRAY(Text())),
        bindparam("since", type_=ARRAY(TIMESTAMP)),
        bindparam("change_id", type_=Uuid()),
        bindparam("now", type_=TIMESTAMP),
        bindparam("may_override", type_=Boolean()),
    )
)

_MOVE_HELD = Query(
    text(
        f"""
    WITH held AS (
        SELECT *, CASE WHEN face_id = ANY(:freed) THEN NULL ELSE :to_person END AS onward
        FROM assignments WHERE person_id = :from_person
    ), target AS (
        SELECT face_id, onward AS person_id,
            CASE WHEN onward IS NOT NULL THEN source END AS source,
            CASE WHEN onward IS NOT NULL THEN confidence END AS confidence,
            CASE WHEN onward IS NOT NULL AND face_id = ANY(:unpinned) THEN 'CHOSEN'
                WHEN onward IS NOT NULL THEN choice END AS choice,
            assigned_at AS since
        FROM held
    ), {_STEPS}
    SELECT face_id FROM target ORDER BY face_id
    """
    ).bindparams(
        bindparam("from_person", type_=Uuid()),
        bindparam("to_person", type_=Uuid()),
        bindparam("freed", type_=ARRAY(Uuid())),
        bindparam("unpinned", type_=ARRAY(Uuid())),
        bindparam("change_id", type_=Uuid()),
        bindparam("now", type_=TIMESTAMP),
    )
)


async def move_faces(
    tx: Transaction,
    clock: Clock,
    library_id: str,
    change_id: UUID,
    moves: Sequence[Move],
    *,
    unless_excluded: bool = False,
) -> dict[UUID, Assignment]:
    """Give faces to persons, or to nobody, as one change; answers with the assignments there are now, by face.

    The faces are locked, or held by persons who are. Prototypes do not go along: they are chosen again.

    With ``unless_excluded`` a face that is excluded from whom it was to go to is left alone, and missing in the answer: a merge
    moves exclusions under the locks of the persons alone, so whoever read them before those locks has to look again.
    """
    if not moves:
        return {}
    holds = [move.hold for move in moves]
    rows = await tx.rows(
        _MOVE,
        {
            "face_ids": [move.face_id for move in moves],
            "person_ids": [hold.person_id if hold else None for hold in holds],
            "sources": [hold.source.value if hold else None for hold in holds],
            "confidences": [hold.confidence if hold else None for hold in holds],
            "choices": [hold.choice.value if hold and hold.choice else None for hold in holds],
            "since": [hold.assigned_at if hold else None for hold in holds],
            "change_id": change_id,
            "library_id": library_id,
            "now": clock.now(),
            "may_override": not unless_excluded,
        },
    )
    return {row.face_id: to_assignment(row) for row in rows}


async def move_held(
    tx: Transaction,
    clock: Clock,
    change_id: UUID,
    from_person: UUID,
    to_person: UUID | None,
    *,
    freed: Collection[UUID] = (),
    unpinned: Collection[UUID] = (),
) -> list[UUID]:
    """Move all that a locked person holds as it is to another, or to nobody, as a change; answers with the faces, by id.

    Those ``freed`` become nobody's, and the pins of those ``unpinned`` become choices. Nothing of the faces but their ids
    leaves PostgreSQL, so that a server can answer others while a hundred thousand move.
    """
    rows = await tx.rows(
        _MOVE_HELD,
        {
            "from_person": from_person,
            "to_person": to_person,
            "freed": list(freed),
            "unpinned": list(unpinned),
            "change_id": change_id,
            "now": clock.now(),
        },
    )
    return [row.face_id for row in rows]


async def list_held_of(tx: Transaction, person_id: UUID, face_ids: Collection[UUID]) -> list[Assignment]:
    """What a locked person holds of these faces, by face id."""
    rows = await tx.rows(
        select(assignments.c.face_id, *HOLD_COLUMNS)
        .where(assignments.c.person_id == person_id, assignments.c.face_id == func.any(list(face_ids)))
        .order_by(assignments.c.face_id)
    )
    return [to_assignment(row) for row in rows]


HOLD_COLUMNS = (
    assignments.c.person_id,
    assignments.c.source,
    assignments.c.confidence,
    assignments.c.choice,
    assignments.c.version,
    assignments.c.assigned_at,
)


def to_assignment(row: Row[Any]) -> Assignment:
    """A row with a face's id and :data:`HOLD_COLUMNS` as the domain sees it."""
    return Assignment(
        face_id=row.face_id,
        person_id=row.person_id,
        source=Source(row.source),
        confidence=row.confidence,
        version=row.version,
        assigned_at=row.assigned_at,
        choice=Choice(row.choice) if row.choice else None,
    )
