"""SQL by which open questions follow people: a page of them, the locks it needs, and one statement that sets them right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    and_,
    case,
    cast,
    column,
    exists,
    func,
    null,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from services.suggestions.domain.model import SuggestionState
from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.tables_persons import LIVING, assignments, exclusions, persons
from shared.db.tables_suggestions import suggestions

_PENDING = SuggestionState.PENDING.value
_EXPIRED = SuggestionState.EXPIRED.value


@dataclass(frozen=True, slots=True)
class Following:
    """How many questions went to another person, were opened where they are, and expired."""

    moved: int
    opened: int
    expired: int


async def list_parts(tx: Transaction, person_ids: Sequence[UUID]) -> list[UUID]:
    """These persons and everybody who became part of them, over however many merges."""
    parts = select(func.unnest(cast(list(person_ids), ARRAY(PG_UUID(as_uuid=True)))).label("person_id")).cte(
        "parts", recursive=True
    )
    merged = select(persons.c.person_id).join(parts, persons.c.merged_into == parts.c.person_id)
    parts = parts.union(merged.where(persons.c.status == "MERGED"))
    return [row.person_id for row in await tx.rows(select(parts.c.person_id))]


async def list_questions_about(
    tx: Transaction, library_id: str, person_ids: Sequence[UUID], after: UUID | None, limit: int
) -> list[UUID]:
    """The next questions, by id, that are about these persons or first were: open, or dormant."""
    statement = select(suggestions.c.suggestion_id).where(
        suggestions.c.library_id == library_id,
        or_(
            suggestions.c.person_id == func.any(list(person_ids)),
            suggestions.c.moved_from == func.any(list(person_ids)),
        ),
        _awake_or_dormant(),
    )
    if after is not None:
        statement = statement.where(suggestions.c.suggestion_id > after)
    rows = await tx.rows(statement.order_by(suggestions.c.suggestion_id).limit(limit))
    return [row.suggestion_id for row in rows]


async def lock_questions(tx: Transaction, suggestion_ids: Sequence[UUID]) -> None:
    """Lock questions by (face, person), and before them the persons they may be about, by id.

    The persons' locks keep others from merging or deleting them, and from asking about them, meanwhile.
    """
    homes = _trace_homes(suggestion_ids)
    await tx.execute(
        select(persons.c.person_id)
        .where(persons.c.person_id.in_(select(homes.c.at)))
        .order_by(persons.c.person_id)
        .with_for_update(key_share=True)
    )
    await tx.execute(
        select(suggestions.c.suggestion_id)
        .where(suggestions.c.suggestion_id == func.any(list(suggestion_ids)))
        .order_by(suggestions.c.face_id, suggestions.c.person_id)
        .with_for_update()
    )


async def settle_questions(tx: Transaction, clock: Clock, suggestion_ids: Sequence[UUID]) -> Following:
    """Set locked questions right, in one statement.

    A question belongs to whoever its first person is part of today. It is open there if that person is neither merged nor
    deleted, the face has no person and is not excluded from them, everything it rests on is theirs, and the pair is not asked
    about already (one row per pair: of several that would come together one goes). Else it is dormant where it is.
    """
    verdicts = _judge_questions(suggestion_ids)
    opens, home = verdicts.c.opens, verdicts.c.home
    changed = (
        update(suggestions)
        .where(
            suggestions.c.suggestion_id == verdicts.c.suggestion_id,
            case(
                (opens, or_(suggestions.c.state != _PENDING, suggestions.c.person_id != home)),
                else_=suggestions.c.state == _PENDING,
            ),
        )
        .values(
            person_id=case((opens, home), else_=suggestions.c.person_id),
            moved_from=case((opens, func.nullif(verdicts.c.origin, home)), else_=suggestions.c.moved_from),
            state=case((opens, _PENDING), else_=_EXPIRED),
            dormant=~opens,
            closed_at=case((opens, null()), else_=clock.now()),
            version=suggestions.c.version + 1,
        )
        .returning(opens.label("opens"), and_(opens, verdicts.c.person_id != home).label("moves"))
        .cte("changed")
    )
    row = await tx.one_or_none(
        select(
            func.count().filter(changed.c.moves).label("moved"),
            func.count().filter(changed.c.opens, ~changed.c.moves).label("opened"),
            func.count().filter(~changed.c.opens).label("expired"),
        ).select_from(changed)
    )
    assert row is not None
    return Following(row.moved, row.opened, row.expired)


def _judge_questions(suggestion_ids: Sequence[UUID]) -> CTE:
    """Where each question belongs (``home``, NULL for nowhere), whom it was first about, and whether it ``opens`` there."""
    trace = _trace_homes(suggestion_ids)
    homes = (
        select(trace.c.start, persons.c.person_id.label("home"))
        .join(persons, persons.c.person_id == trace.c.at)
        .where(LIVING)
        .cte("homes")
    )
    first = persons.alias("first")
    # Whoever was forgotten since leaves the question to the person it has come to.
    origin = func.coalesce(first.c.person_id, suggestions.c.person_id)
    asked = (
        select(
            suggestions.c.suggestion_id,
            suggestions.c.face_id,
            suggestions.c.person_id,
            suggestions.c.confidence,
            suggestions.c.evidence,
            suggestions.c.state,
            origin.label("origin"),
            homes.c.home,
        )
        .select_from(suggestions)
        .outerjoin(first, first.c.person_id == suggestions.c.moved_from)
        .outerjoin(homes, homes.c.start == origin)
        .where(suggestions.c.suggestion_id == func.any(list(suggestion_ids)), _awake_or_dormant())
        .cte("asked")
    )
    stands = and_(
        asked.c.home.is_not(None),
        ~exists().where(assignments.c.face_id == asked.c.face_id),
        ~exists().where(exclusions.c.face_id == asked.c.face_id, exclusions.c.person_id == asked.c.home),
        ~_rests_elsewhere(asked),
        or_(
            asked.c.home == asked.c.person_id,
            ~exists().where(suggestions.c.face_id == asked.c.face_id, suggestions.c.person_id == asked.c.home),
        ),
    ).label("stands")
    judged = select(asked, stands).cte("judged")
    rank = func.row_number().over(
        partition_by=(judged.c.face_id, judged.c.home, judged.c.stands),
        order_by=(
            judged.c.person_id != judged.c.home,
            judged.c.state != _PENDING,
            judged.c.confidence.desc(),
            judged.c.suggestion_id,
        ),
    )
    return select(
        judged.c.suggestion_id,
        judged.c.person_id,
        judged.c.origin,
        judged.c.home,
        and_(judged.c.stands, rank == 1).label("opens"),
    ).cte("verdicts")


def _trace_homes(suggestion_ids: Sequence[UUID]) -> CTE:
    """(start, at): from every person a question is or first was about, along merges, to everybody they became part of."""
    among = suggestions.c.suggestion_id == func.any(list(suggestion_ids))
    named = union(
        select(suggestions.c.person_id.label("start")).where(among),
        select(suggestions.c.moved_from).where(among, suggestions.c.moved_from.is_not(None)),
    ).subquery("named")
    trace = select(named.c.start, named.c.start.label("at")).cte("trace", recursive=True)
    onward = (
        select(trace.c.start, persons.c.merged_into)
        .join(persons, persons.c.person_id == trace.c.at)
        .where(persons.c.status == "MERGED", persons.c.merged_into.is_not(None))
    )
    return trace.union(onward)


def _rests_elsewhere(asked: CTE) -> ColumnElement[bool]:
    """Whether an exemplar among the evidence is not a face of the home any more."""
    exemplar = func.jsonb_array_elements(asked.c.evidence["exemplars"]).table_valued(column("value", JSONB)).lateral()
    shown = cast(exemplar.c.value["face_id"].astext, PG_UUID(as_uuid=True))
    return (
        exists()
        .select_from(exemplar.outerjoin(assignments, assignments.c.face_id == shown))
        .where(assignments.c.person_id.is_distinct_from(asked.c.home))
    )


def _awake_or_dormant() -> ColumnElement[bool]:
    return or_(suggestions.c.state == _PENDING, and_(suggestions.c.state == _EXPIRED, suggestions.c.dormant))
