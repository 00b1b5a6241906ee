"""SQL of ``prototypes``, and of what they are chosen among.

Where all faces of a person are counted by era, PostgreSQL tells it, by the days between which eras lie
(:func:`shared.faces.eras.list_era_spans`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Date, SmallInteger, Uuid, and_, bindparam, delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.engine import Row

from services.persons.domain.model import EraCoverage, Prototype
from shared.db.engine import Transaction
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_persons import LIVING, assignments, persons, prototypes
from shared.faces.eras import (
    ERA_ORDER,
    Era,
    PartialDate,
    find_era,
    list_era_spans,
    make_capture_date,
    make_partial_date,
)
from shared.faces.near_duplicates import FacePlace, PhotoStamp
from shared.faces.prototypes import Choice, PrototypeRole

BEST_FACES: Final = 200
BEST_OF_YEAR: Final = 4
"""Prototypes are chosen among a person's best faces by quality, and the best of each year of life: so that there are never
very many, and no era is passed over because its photos are poor."""

# From which the years of somebody are counted whose birth date is not known.
_SOME_DAY: Final = PartialDate(date(2000, 1, 1))
_UNSIGNED: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class PrototypeOwner:
    """What decides about a person's prototypes besides the faces: who is merged or deleted has none."""

    person_id: UUID
    born: PartialDate | None
    face_count: int
    living: bool


@dataclass(frozen=True, slots=True)
class PersonFace:
    """A face of a person, with what choosing prototypes needs; angles in degrees. ``taken`` is None unless known to the
    second.
    """

    face_id: UUID
    person_id: UUID
    asset_id: str
    quality: float
    size: float
    yaw: float
    pitch: float
    choice: Choice | None
    era: Era | None
    taken: datetime | None
    difference_hash: int | None
    box: tuple[float, float, float, float]
    width: int
    height: int
    embedding: bytes

    @property
    def stamp(self) -> PhotoStamp:
        """What tells its photo's near-duplicates."""
        return PhotoStamp(self.asset_id, self.difference_hash, self.taken)

    @property
    def place(self) -> FacePlace:
        """What tells it from other faces in near-duplicate photos."""
        # A photo whose size was never read is as good as one pixel: its faces are alike only if their boxes are equal.
        return FacePlace(str(self.face_id), self.asset_id, self.box, max(self.width, 1), max(self.height, 1))


@dataclass(frozen=True, slots=True)
class PinnedFace:
    """A face that is pinned as a prototype, or was asked for, and when its photo was taken."""

    face_id: UUID
    person_id: UUID
    captured: PartialDate | None


async def list_owners(tx: Transaction, person_ids: Sequence[UUID]) -> list[PrototypeOwner]:
    """These persons, by id."""
    rows = await tx.rows(
        select(
            persons.c.person_id,
            persons.c.birth_year,
            persons.c.birth_month,
            persons.c.birth_day,
            persons.c.face_count,
            LIVING.label("living"),
        )
        .where(persons.c.person_id == func.any(list(person_ids)))
        .order_by(persons.c.person_id)
    )
    return [
        PrototypeOwner(
            row.person_id,
            make_partial_date(row.birth_year, row.birth_month, row.birth_day),
            row.face_count,
            row.living,
        )
        for row in rows
    ]


async def list_prototypes(tx: Transaction, person_ids: Sequence[UUID]) -> list[Prototype]:
    """The prototypes of these persons: pinned ones first, then by role, then best first."""
    ranks = {role.value: rank for rank, role in enumerate(PrototypeRole)}
    rows = await tx.rows(
        select(prototypes, assignments.c.choice)
        .join(assignments, assignments.c.face_id == prototypes.c.face_id)
        .where(prototypes.c.person_id == func.any(list(person_ids)))
    )
    return sorted(
        (_to_prototype(row) for row in rows),
        key=lambda row: (row.person_id, not row.pinned, ranks[row.role.value], -row.quality, row.face_id),
    )


async def list_best_faces(tx: Transaction, library_id: str, owners: Sequence[PrototypeOwner]) -> list[PersonFace]:
    """The faces among which the prototypes of these persons are chosen, by person, best first: active ones with an embedding
    of the active model. Faces of which a human said something are all there.
    """
    born = {owner.person_id: owner.born for owner in owners}
    if all(owner.face_count <= BEST_FACES for owner in owners):
        among = assignments.c.person_id == func.any(list(born))
    else:
        births = [(known or _SOME_DAY).latest for known in born.values()]
        ranked = await tx.rows(_BEST_FACES, {"owners": list(born), "births": births})
        # By itself: PostgreSQL cannot know how few they are, and would read every embedding there is.
        among = faces.c.face_id == func.any([row.face_id for row in ranked])
    rows = await tx.rows(
        select(*_PERSON_FACE)
        .join(assignments, assignments.c.face_id == faces.c.face_id)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .join(models, and_(models.c.library_id == library_id, models.c.state == "ACTIVE"))
        .join(
            face_embeddings,
            and_(
                face_embeddings.c.face_id == faces.c.face_id,
                face_embeddings.c.model_version == models.c.model_version,
            ),
        )
        .where(among, faces.c.state == "ACTIVE")
        .order_by(assignments.c.person_id, faces.c.quality.desc(), faces.c.face_id)
    )
    return [_to_person_face(row, born[row.person_id]) for row in rows]


async def replace_prototypes(
    tx: Transaction, library_id: str, person_ids: Sequence[UUID], chosen: Sequence[Prototype]
) -> None:
    """Make these the prototypes of these locked persons, and no others. One that stays keeps its time."""
    await tx.execute(
        delete(prototypes).where(
            prototypes.c.person_id == func.any(list(person_ids)),
            prototypes.c.face_id != func.all([row.face_id for row in chosen]),
        )
    )
    if not chosen:
        return
    statement = insert(prototypes).values(
        [
            {
                "face_id": row.face_id,
                "library_id": library_id,
                "person_id": row.person_id,
                "role": row.role.value,
                "era": row.era.value if row.era else None,
                "pinned": row.pinned,
                "quality": row.quality,
                "created_at": row.created_at,
            }
            for row in chosen
        ]
    )
    written = ("person_id", "role", "era", "pinned", "quality")
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=["face_id"],
            set_={name: statement.excluded[name] for name in written},
            where=or_(*(prototypes.c[name].is_distinct_from(statement.excluded[name]) for name in written)),
        )
    )


async def count_eras(tx: Transaction, person_id: UUID, born: PartialDate | None) -> list[EraCoverage]:
    """How many faces and prototypes a person has in each era: every era once, then those of unknown date."""
    spans = list_era_spans(born) if born else []
    parameters = {
        "person_id": person_id,
        "eras": [ERA_ORDER.index(span.era) for span in spans],
        "firsts": [span.first for span in spans],
        "lasts": [span.last for span in spans],
        "births": [span.born for span in spans],
    }
    rows = await tx.rows(_COUNT_ERAS, parameters)
    counted = {_era(row): (row.face_count, row.prototype_count, bool(row.pinned)) for row in rows}
    return [EraCoverage(era, *counted.get(era, (0, 0, False))) for era in (*ERA_ORDER, None)]


async def list_pinned(tx: Transaction, person_ids: Collection[UUID], also: Collection[UUID] = ()) -> list[PinnedFace]:
    """The faces that are pinned as prototypes of these persons, and those of theirs named in ``also``; by id."""
    rows = await tx.rows(
        select(assignments.c.face_id, assignments.c.person_id, assets.c.captured_at, assets.c.captured_precision)
        .join(faces, faces.c.face_id == assignments.c.face_id)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .where(
            assignments.c.person_id == func.any(list(person_ids)),
            or_(assignments.c.choice == Choice.PINNED.value, assignments.c.face_id.in_(list(also))),
        )
        .order_by(assignments.c.face_id)
    )
    return [
        PinnedFace(row.face_id, row.person_id, make_capture_date(row.captured_at, row.captured_precision))
        for row in rows
    ]


_PERSON_FACE = (
    faces.c.face_id,
    assignments.c.person_id,
    assignments.c.choice,
    faces.c.asset_id,
    faces.c.quality,
    faces.c.quality_size,
    faces.c.yaw,
    faces.c.pitch,
    faces.c.box_x,
    faces.c.box_y,
    faces.c.box_width,
    faces.c.box_height,
    assets.c.captured_at,
    assets.c.captured_precision,
    assets.c.difference_hash,
    assets.c.width,
    assets.c.height,
    face_embeddings.c.embedding,
)


_BEST_FACES = text(
    f"""
    WITH ranked AS (
        SELECT a.face_id, a.choice,
            row_number() OVER (PARTITION BY a.person_id ORDER BY f.quality DESC, a.face_id) AS place,
            row_number() OVER (
                PARTITION BY a.person_id, t.captured_precision IN ('MONTH', 'YEAR'),
                    floor((t.captured_at::date - o.born) / 365.25)
                ORDER BY f.quality DESC, a.face_id
            ) AS place_in_year
        FROM unnest(:owners, :births) AS o (person_id, born)
        JOIN assignments a ON a.person_id = o.person_id
        JOIN faces f ON f.face_id = a.face_id
        JOIN assets t ON t.library_id = f.library_id AND t.asset_id = f.asset_id
        WHERE f.state = 'ACTIVE' AND a.person_id = ANY(:owners)
    )
    SELECT face_id FROM ranked WHERE place <= {BEST_FACES} OR place_in_year <= {BEST_OF_YEAR} OR choice IS NOT NULL
    """
).bindparams(bindparam("owners", type_=ARRAY(Uuid())), bindparam("births", type_=ARRAY(Date())))

# Every face of the person with its era, by its place in ERA_ORDER. The days between which a photo was taken are those of
# shared.faces.eras.PartialDate; OFFSET 0 has them computed once a face, and not once for every bound of every era.
_COUNT_ERAS = text(
    """
    WITH spans AS (
        SELECT * FROM unnest(:eras, :firsts, :lasts, :births) AS s (era, first, last, born)
    ), dated AS (
        SELECT a.face_id, s.era
        FROM assignments a
        JOIN faces f ON f.face_id = a.face_id
        JOIN assets t ON t.library_id = f.library_id AND t.asset_id = f.asset_id
        CROSS JOIN LATERAL (
            SELECT
                CASE WHEN t.captured_precision IN ('YEAR', 'MONTH')
                    THEN date_trunc(t.captured_precision, t.captured_at)::date
                    ELSE t.captured_at::date END AS earliest,
                CASE WHEN t.captured_precision IN ('YEAR', 'MONTH')
                    THEN (date_trunc(t.captured_precision, t.captured_at) + ('1 ' || t.captured_precision)::interval)::date - 1
                    ELSE t.captured_at::date END AS latest
            OFFSET 0
        ) AS taken
        LEFT JOIN spans s ON taken.earliest >= s.first AND taken.latest BETWEEN s.born AND s.last
        WHERE a.person_id = :person_id
    )
    SELECT d.era, count(*) AS face_count, count(p.face_id) AS prototype_count, bool_or(p.pinned) AS pinned
    FROM dated d LEFT JOIN prototypes p ON p.face_id = d.face_id GROUP BY d.era
    """
).bindparams(
    bindparam("person_id", type_=Uuid()),
    bindparam("eras", type_=ARRAY(SmallInteger())),
    bindparam("firsts", type_=ARRAY(Date())),
    bindparam("lasts", type_=ARRAY(Date())),
    bindparam("births", type_=ARRAY(Date())),
)


def _to_prototype(row: Row[Any]) -> Prototype:
    return Prototype(
        face_id=row.face_id,
        person_id=row.person_id,
        role=PrototypeRole(row.role),
        era=Era(row.era) if row.era else None,
        pinned=row.pinned,
        quality=row.quality,
        created_at=row.created_at,
        choice=Choice(row.choice) if row.choice else None,
    )


def _era(row: Row[Any]) -> Era | None:
    return None if row.era is None else ERA_ORDER[row.era]


def _to_person_face(row: Row[Any], born: PartialDate | None) -> PersonFace:
    return PersonFace(
        face_id=row.face_id,
        person_id=row.person_id,
        asset_id=row.asset_id,
        quality=row.quality,
        size=row.quality_size,
        yaw=row.yaw,
        pitch=row.pitch,
        choice=Choice(row.choice) if row.choice else None,
        era=find_era(born, make_capture_date(row.captured_at, row.captured_precision)),
        taken=row.captured_at if row.captured_precision in {None, "SECOND"} else None,
        difference_hash=None if row.difference_hash is None else row.difference_hash & _UNSIGNED,
        box=(row.box_x, row.box_y, row.box_width, row.box_height),
        width=row.width,
        height=row.height,
        embedding=bytes(row.embedding),
    )
