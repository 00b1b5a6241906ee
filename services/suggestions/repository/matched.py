"""What is read of a face before it is matched: itself, whom it was said not to be, and who cannot be it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import and_, exists, false, literal, or_, select, union_all

from services.suggestions.domain.model import SuggestionState
from services.suggestions.repository.known import PHOTO_FACE, PhotoFace, to_photo_face
from shared.db.engine import Transaction
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_persons import allowed_doubles, assignments, exclusions, persons, prototypes
from shared.db.tables_suggestions import suggestions
from shared.errors import NotFound
from shared.faces.eras import PartialDate, is_before_birth, make_partial_date

# More would make a query larger than what it finds. Those with the most faces are left out first.
MOST_BARRED: Final = 10_000


class Refusal(StrEnum):
    """How a human said that a face is not a person."""

    EXCLUDED = "EXCLUDED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class MatchedFace:
    """A face to be matched, in whatever state. ``embedding``: as stored, by one model; None if it has none. ``assigned``: it
    has a person. ``may_double``: its photo may show one person twice.
    """

    face: PhotoFace
    embedding: bytes | None
    state: str
    assigned: bool
    may_double: bool


@dataclass(frozen=True, slots=True)
class BarredPersons:
    """Persons with prototypes whom a photo cannot show: ``gone`` are deleted, ``unborn`` born after it was taken."""

    gone: frozenset[UUID]
    unborn: frozenset[UUID]


async def get_matched_face(tx: Transaction, library_id: str, face_id: UUID, model_version: str) -> MatchedFace:
    """One face; raises :class:`NotFound`."""
    double = and_(allowed_doubles.c.library_id == faces.c.library_id, allowed_doubles.c.asset_id == faces.c.asset_id)
    embedded = and_(
        face_embeddings.c.face_id == faces.c.face_id, face_embeddings.c.model_version == literal(model_version)
    )
    row = await tx.one_or_none(
        select(
            faces.c.state,
            face_embeddings.c.embedding,
            assignments.c.person_id,
            allowed_doubles.c.asset_id.is_not(None).label("may_double"),
            *PHOTO_FACE,
        )
        .select_from(faces)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .outerjoin(face_embeddings, embedded)
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .outerjoin(allowed_doubles, double)
        .where(faces.c.library_id == library_id, faces.c.face_id == face_id)
    )
    if row is None:
        raise NotFound("face", str(face_id))
    embedding = None if row.embedding is None else bytes(row.embedding)
    return MatchedFace(to_photo_face(row), embedding, row.state, row.person_id is not None, row.may_double)


async def list_refusals(tx: Transaction, face_id: UUID) -> Mapping[UUID, set[Refusal]]:
    """Whom a face was said not to be, and how. A rejection whose exclusion was taken back counts for nothing."""
    rows = await tx.rows(
        union_all(
            select(exclusions.c.person_id, literal(Refusal.EXCLUDED.value).label("refusal")).where(
                exclusions.c.face_id == face_id
            ),
            select(suggestions.c.person_id, literal(Refusal.REJECTED.value)).where(
                suggestions.c.face_id == face_id,
                suggestions.c.state == SuggestionState.REJECTED.value,
                exists().where(
                    exclusions.c.face_id == suggestions.c.face_id, exclusions.c.person_id == suggestions.c.person_id
                ),
            ),
        )
    )
    found: dict[UUID, set[Refusal]] = {}
    for row in rows:
        found.setdefault(row.person_id, set()).add(Refusal(row.refusal))
    return found


async def list_barred(tx: Transaction, library_id: str, captured: PartialDate | None) -> BarredPersons:
    """Who is deleted or was born after a photo of this day, of those with prototypes; at most :data:`MOST_BARRED`."""
    # By the year first, which the database can tell: the day of birth may be known to the month or year only.
    late = persons.c.birth_year >= captured.latest.year if captured else false()
    rows = await tx.rows(
        select(
            persons.c.person_id,
            persons.c.deleted_at,
            persons.c.birth_year,
            persons.c.birth_month,
            persons.c.birth_day,
        )
        .where(
            persons.c.library_id == library_id,
            or_(persons.c.deleted_at.is_not(None), late),
            exists().where(prototypes.c.person_id == persons.c.person_id),
        )
        .order_by(persons.c.face_count.desc(), persons.c.person_id)
        .limit(MOST_BARRED)
    )
    gone = {row.person_id for row in rows if row.deleted_at is not None}
    born = {
        row.person_id: make_partial_date(row.birth_year, row.birth_month, row.birth_day)
        for row in rows
        if row.deleted_at is None
    }
    unborn = {person_id for person_id, birth in born.items() if is_before_birth(birth, captured)}
    return BarredPersons(frozenset(gone), frozenset(unborn))
