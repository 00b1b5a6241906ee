"""What is known of a library's people: the active model, birth dates, prototypes and mode centroids with their vectors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Integer, Subquery, and_, func, null, select, union_all

from shared.db.calibrations import CALIBRATED_MODELS, IN_FORCE
from shared.db.engine import Transaction
from shared.db.tables_clustering import centroids
from shared.db.tables_detection import assets, face_embeddings, faces, models
from shared.db.tables_persons import LIVING, persons, prototypes
from shared.errors import NotFound, PreconditionFailed, Reason
from shared.faces.eras import Era, PartialDate, make_capture_date, make_partial_date
from shared.faces.near_duplicates import FacePlace, PhotoStamp
from shared.faces.prototypes import PrototypeRole

_UNSIGNED = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """The embedding space of a library, with its pack's cosines, and the calibration in force."""

    model_version: str
    dimension: int
    thresholds: dict[str, Any]
    calibration: dict[str, Any]


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """A person who is neither merged nor deleted. ``hidden``: asked about only where they are named."""

    person_id: UUID
    birth_date: PartialDate | None
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class PhotoFace:
    """A face in its photo: where and when. ``taken`` is None unless known to the second."""

    face_id: UUID
    asset_id: str
    quality: float
    captured: PartialDate | None
    taken: datetime | None
    difference_hash: int | None
    box: tuple[float, float, float, float]
    width: int
    height: int

    @property
    def stamp(self) -> PhotoStamp:
        """What tells its photo's near-duplicates."""
        return PhotoStamp(self.asset_id, self.difference_hash, self.taken)

    @property
    def place(self) -> FacePlace:
        """What tells it from the other faces of near-duplicate photos."""
        # A photo whose size was never read is as good as one pixel: its faces are alike only if their boxes are equal.
        return FacePlace(str(self.face_id), self.asset_id, self.box, max(self.width, 1), max(self.height, 1))


@dataclass(frozen=True, slots=True)
class KnownPrototype:
    """A prototype; ``embedding`` as stored. ``role`` is None of any other face of the person that stands for one."""

    person_id: UUID
    face: PhotoFace
    era: Era | None
    embedding: bytes
    role: PrototypeRole | None = None


@dataclass(frozen=True, slots=True)
class KnownCentroid:
    """A mode centroid; ``embedding`` as stored."""

    person_id: UUID
    embedding: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """People by id, and what they are recognised by: prototypes by person, best first, and mode centroids by person."""

    persons: list[KnownPerson]
    prototypes: list[KnownPrototype]
    centroids: list[KnownCentroid]


async def find_active_model(tx: Transaction, library_id: str) -> ActiveModel | None:
    """The model a library's searches use; None before its first detection."""
    row = await tx.one_or_none(
        select(models.c.model_version, models.c.dimension, models.c.thresholds, IN_FORCE.label("calibration"))
        .select_from(CALIBRATED_MODELS)
        .where(models.c.library_id == library_id, models.c.state == "ACTIVE")
    )
    if row is None:
        return None
    return ActiveModel(row.model_version, row.dimension, row.thresholds, row.calibration)


async def read_known(
    tx: Transaction, library_id: str, model_version: str, among: Collection[UUID] | None = None
) -> Known:
    """Everybody a face may be, or those ``among`` them, hidden persons too, with what they are recognised by in one model's
    space, in one statement.
    """
    references = _select_references(library_id, model_version, among)
    rows = await tx.rows(
        select(
            persons.c.person_id,
            persons.c.status,
            persons.c.birth_year,
            persons.c.birth_month,
            persons.c.birth_day,
            *(column for column in references.c if column.name != "owner"),
        )
        .select_from(persons.outerjoin(references, references.c.owner == persons.c.person_id))
        .where(persons.c.library_id == library_id, LIVING, *_among(persons.c.person_id, among))
        .order_by(
            persons.c.person_id,
            references.c.mode.nulls_first(),
            references.c.quality.desc(),
            references.c.face_id,
        )
    )
    found = Known([], [], [])
    for row in rows:
        if not found.persons or found.persons[-1].person_id != row.person_id:
            born = make_partial_date(row.birth_year, row.birth_month, row.birth_day)
            found.persons.append(KnownPerson(row.person_id, born, hidden=row.status == "HIDDEN"))
        if row.face_id is not None:
            era, role = Era(row.era) if row.era else None, PrototypeRole(row.role)
            found.prototypes.append(KnownPrototype(row.person_id, to_photo_face(row), era, bytes(row.embedding), role))
        elif row.embedding is not None:
            found.centroids.append(KnownCentroid(row.person_id, bytes(row.embedding)))
    return found


def _select_references(library_id: str, model_version: str, among: Collection[UUID] | None) -> Subquery:
    """Prototypes, and mode centroids with a ``mode`` and without a face, by ``owner``."""
    of_faces = (
        select(
            prototypes.c.person_id.label("owner"),
            null().cast(Integer).label("mode"),
            prototypes.c.era,
            prototypes.c.role,
            face_embeddings.c.embedding,
            *PHOTO_FACE,
        )
        .select_from(prototypes)
        .join(faces, faces.c.face_id == prototypes.c.face_id)
        .join(assets, and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id))
        .join(face_embeddings, face_embeddings.c.face_id == prototypes.c.face_id)
        .where(
            prototypes.c.library_id == library_id,
            face_embeddings.c.model_version == model_version,
            *_among(prototypes.c.person_id, among),
        )
    )
    of_modes = select(
        centroids.c.person_id,
        centroids.c.mode,
        null(),
        null(),
        centroids.c.embedding,
        *(null().cast(column.type) for column in PHOTO_FACE),
    ).where(
        centroids.c.library_id == library_id,
        centroids.c.model_version == model_version,
        centroids.c.kind == "CLUSTER",
        *_among(centroids.c.person_id, among),
    )
    return union_all(of_faces, of_modes).subquery()


async def list_persons_to_ask_about(tx: Transaction, library_id: str) -> list[UUID]:
    """Every active person with faces, by id."""
    rows = await tx.rows(
        select(persons.c.person_id)
        .where(
            persons.c.library_id == library_id,
            persons.c.status == "ACTIVE",
            persons.c.deleted_at.is_(None),
            persons.c.face_count > 0,
        )
        .order_by(persons.c.person_id)
    )
    return [row.person_id for row in rows]


async def check_persons(tx: Transaction, library_id: str, person_ids: Sequence[UUID]) -> None:
    """Raise :class:`NotFound` for the first unknown person, :class:`PreconditionFailed` for one merged or deleted."""
    rows = await tx.rows(
        select(persons.c.person_id, persons.c.status, persons.c.merged_into, persons.c.deleted_at).where(
            persons.c.library_id == library_id, persons.c.person_id == func.any(list(person_ids))
        )
    )
    found = {row.person_id: row for row in rows}
    for person_id in person_ids:
        row = found.get(person_id)
        if row is None:
            raise NotFound("person", str(person_id))
        if row.status == "MERGED" or row.deleted_at is not None:
            status = "DELETED" if row.deleted_at is not None else row.status
            raise PreconditionFailed(
                f"person '{person_id}' is {status.lower()}",
                reason=Reason.PERSON_NOT_ACTIVE,
                metadata={
                    "person_id": str(person_id),
                    "status": status,
                    "merged_into": str(row.merged_into or ""),
                },
            )


def _among(person_id: Column[UUID], among: Collection[UUID] | None) -> list[ColumnElement[bool]]:
    return [] if among is None else [person_id == func.any(sorted(among))]


PHOTO_FACE = (
    faces.c.face_id,
    faces.c.asset_id,
    faces.c.quality,
    faces.c.box_x,
    faces.c.box_y,
    faces.c.box_width,
    faces.c.box_height,
    assets.c.captured_at,
    assets.c.captured_precision,
    assets.c.difference_hash,
    assets.c.width,
    assets.c.height,
)


def to_photo_face(row: Any) -> PhotoFace:
    """A row of :data:`PHOTO_FACE` columns."""
    return PhotoFace(
        face_id=row.face_id,
        asset_id=row.asset_id,
        quality=row.quality,
        captured=make_capture_date(row.captured_at, row.captured_precision),
        taken=row.captured_at if row.captured_precision in {None, "SECOND"} else None,
        difference_hash=None if row.difference_hash is None else row.difference_hash & _UNSIGNED,
        box=(row.box_x, row.box_y, row.box_width, row.box_height),
        width=row.width,
        height=row.height,
    )
