"""What a library's people are recognised by, and what keeps a machine from taking a face for one of them.

All is read in a fixed number of statements, however many people and faces there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, and_, cast, func, literal, null, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE

from services.clustering.domain.model import ActiveModel
from services.clustering.repository.unassigned import STREAM_ROWS
from shared.db.calibrations import read_library_calibration
from shared.db.engine import Transaction
from shared.db.tables_clustering import centroids
from shared.db.tables_detection import assets, face_embeddings, faces
from shared.db.tables_persons import allowed_doubles, assignments, exclusions, persons, prototypes
from shared.errors import MemoryBudgetExceeded
from shared.faces.calibration import Calibration
from shared.faces.embeddings import Vectors, decode_embeddings
from shared.faces.eras import ERA_ORDER, Era, PartialDate, make_capture_date, make_partial_date

MIB: Final = 1024 * 1024
FIRST_DAY: Final = 0
LAST_DAY: Final = np.iinfo(np.int32).max
_BORN_UNKNOWN: Final = FIRST_DAY
_NO_ERA: Final = -1

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """Somebody there is something to recognise by. ``asked_about``: not hidden."""

    person_id: UUID
    birth_date: PartialDate | None
    asked_about: bool


@dataclass(frozen=True, slots=True, eq=False)
class KnownPeople:
    """People p = 0..P-1 by how much they are recognised by, those with the most references first, and these in layers.

    ``vectors`` (M, D) float32 unit rows. Layer j holds the j-th reference of everybody who has so many, which is the first
    people: it begins at row ``starts[j]`` and ends at ``starts[j + 1]``, and person p's is row ``starts[j] + p``. A person's
    prototypes come first, the best one first of all, then their mode centroids. ``prototypes`` (P,) and ``references`` (P,)
    count them. ``eras`` (M,) int8: place in :data:`ERA_ORDER`, -1 if unknown.

    Everything is of the model's own space, also where the library has a matcher: ``calibration`` and ``thresholds`` are of
    its cosines, and look-alikes are more alike in a matcher's space than carrying those over allows for.
    """

    people: Sequence[KnownPerson]
    vectors: Vectors
    starts: npt.NDArray[np.int64]
    prototypes: Ints
    references: Ints
    eras: npt.NDArray[np.int8]
    thresholds: Mapping[str, float]
    calibration: Calibration

    @property
    def born(self) -> Ints:
        """(P,) the first day each may have been born on, 0 if unknown; days as of :meth:`datetime.date.toordinal`."""
        dates = [person.birth_date for person in self.people]
        return np.array([date.earliest.toordinal() if date else _BORN_UNKNOWN for date in dates], dtype=np.int32)

    def layers(self) -> Iterator[Vectors]:
        """Each layer's vectors, a view."""
        for start, end in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            yield self.vectors[start:end]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of a row of the face table and a person: ``rows`` (K,), never falling, and ``people`` (K,) 0..P-1."""

    rows: Ints
    people: Ints


@dataclass(frozen=True, slots=True, eq=False)
class FaceBounds:
    """What binds a machine, by row of the face table.

    ``free`` (N,): still ACTIVE and without a person. ``first`` and ``last`` (N,): between which days the photo was taken,
    0 and 2**31 - 1 if unknown. ``doubles`` (N,): the photo may show one person twice. ``refused``: a human said that they
    are not that person. ``shown``: the person has another face in the photo.
    """

    free: npt.NDArray[np.bool_]
    first: Ints
    last: Ints
    doubles: npt.NDArray[np.bool_]
    refused: Pairs
    shown: Pairs


async def read_known(tx: Transaction, library_id: str, model: ActiveModel, memory_budget_mb: int) -> KnownPeople:
    """Everybody of a library who is neither merged nor deleted and has a prototype or a mode centroid; four statements.

    Memory: M * D * 4 bytes for M references, checked before they are read: raises :class:`MemoryBudgetExceeded`. Raises
    ``ValueError`` for a stored calibration that is none.
    """
    calibration = await read_library_calibration(tx, library_id, model.model_version)
    counted = _references(library_id, model).subquery("counted")
    rows = await tx.rows(
        select(
            counted.c.person_id,
            func.count().label("held"),
            func.count().filter(counted.c.exemplar).label("exemplars"),
        )
        .group_by(counted.c.person_id)
        .order_by(func.count().desc(), counted.c.person_id)
    )
    names = {person.person_id: person for person in await _list_persons(tx, library_id)}
    counts = [(row.person_id, row.held, row.exemplars) for row in rows if row.person_id in names]
    held = np.array([count for _, count, _ in counts], dtype=np.int32)
    # Layer j has everybody with more than j references, and whoever has most comes first.
    sizes = [int(np.count_nonzero(held > layer)) for layer in range(int(held.max(initial=0)))]
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    _check_memory(int(starts[-1]) * model.dimension * 4, memory_budget_mb)
    vectors = np.empty((int(starts[-1]), model.dimension), dtype=np.float32)
    eras = np.full(len(vectors), _NO_ERA, dtype=np.int8)
    numbers = {person_id: number for number, (person_id, _, _) in enumerate(counts)}
    filled = np.zeros(len(counts), dtype=np.int64)
    every = _references(library_id, model).subquery("every")
    statement = select(every).order_by(
        every.c.person_id, every.c.exemplar.desc(), every.c.quality.desc(), every.c.reference_id
    )
    async with tx.connection.stream(statement.execution_options(yield_per=STREAM_ROWS)) as stream:
        async for part in stream.partitions():
            ours = [row for row in part if row.person_id in numbers]
            places = np.empty(len(ours), dtype=np.int64)
            for index, row in enumerate(ours):
                number = numbers[row.person_id]
                places[index] = starts[filled[number]] + number
                filled[number] += 1
            vectors[places] = decode_embeddings([bytes(row.embedding) for row in ours], model.dimension)
            eras[places] = [ERA_ORDER.index(Era(row.era)) if row.era else _NO_ERA for row in ours]
    return KnownPeople(
        people=[names[person_id] for person_id, _, _ in counts],
        vectors=vectors,
        starts=starts,
        prototypes=np.array([count for _, _, count in counts], dtype=np.int32),
        references=held,
        eras=eras,
        thresholds=model.thresholds,
        calibration=calibration,
    )


async def read_bounds(tx: Transaction, library_id: str, known: KnownPeople, face_ids: Sequence[UUID]) -> FaceBounds:
    """What binds a machine in giving these faces to these people, as it stands now; three statements."""
    count = len(face_ids)
    free = np.zeros(count, dtype=np.bool_)
    doubles = np.zeros(count, dtype=np.bool_)
    first = np.full(count, FIRST_DAY, dtype=np.int32)
    last = np.full(count, LAST_DAY, dtype=np.int32)
    numbers = {person.person_id: number for number, person in enumerate(known.people)}
    statement = _photos(library_id, face_ids).execution_options(yield_per=STREAM_ROWS)
    async with tx.connection.stream(statement) as stream:
        async for part in stream.partitions():
            rows = np.array([row.row for row in part], dtype=np.int64) - 1
            free[rows] = True
            doubles[rows] = [row.may_double for row in part]
            dates = [make_capture_date(row.captured_at, row.captured_precision) for row in part]
            first[rows] = [date.earliest.toordinal() if date else FIRST_DAY for date in dates]
            last[rows] = [date.latest.toordinal() if date else LAST_DAY for date in dates]
    return FaceBounds(
        free=free,
        first=first,
        last=last,
        doubles=doubles,
        refused=await _read_pairs(tx, _refused(face_ids), numbers),
        shown=await _read_pairs(tx, _shown(library_id, face_ids), numbers),
    )


def _check_memory(needed: int, budget_mb: int) -> None:
    needed_mb = -(-needed // MIB)
    if needed_mb > budget_mb:
        raise MemoryBudgetExceeded(
            f"what the known people are recognised by needs {needed_mb} MiB and {budget_mb} are allowed; "
            "raise KITH_CLUSTERING_MEMORY_BUDGET_MB",
            metadata={"needed_mb": str(needed_mb), "budget_mb": str(budget_mb)},
        )


async def _list_persons(tx: Transaction, library_id: str) -> list[KnownPerson]:
    rows = await tx.rows(
        select(
            persons.c.person_id, persons.c.status, persons.c.birth_year, persons.c.birth_month, persons.c.birth_day
        ).where(persons.c.library_id == library_id, persons.c.status != "MERGED", persons.c.deleted_at.is_(None))
    )
    return [
        KnownPerson(
            row.person_id,
            make_partial_date(row.birth_year, row.birth_month, row.birth_day),
            asked_about=row.status == "ACTIVE",
        )
        for row in rows
    ]


def _references(library_id: str, model: ActiveModel) -> Any:
    """Prototypes and mode centroids of everybody, those of merged and deleted persons too."""
    shown = (
        select(
            prototypes.c.person_id,
            literal(True).label("exemplar"),
            prototypes.c.face_id.label("reference_id"),
            prototypes.c.quality,
            prototypes.c.era,
            face_embeddings.c.embedding,
        )
        .join(face_embeddings, face_embeddings.c.face_id == prototypes.c.face_id)
        .where(prototypes.c.library_id == library_id, face_embeddings.c.model_version == model.model_version)
    )
    modes = select(
        centroids.c.person_id,
        literal(False),
        centroids.c.centroid_id,
        cast(0, prototypes.c.quality.type),
        cast(null(), prototypes.c.era.type),
        centroids.c.embedding,
    ).where(
        centroids.c.library_id == library_id,
        centroids.c.model_version == model.model_version,
        centroids.c.kind == "CLUSTER",
    )
    return union_all(shown, modes)


def _given(face_ids: Sequence[UUID]) -> Any:
    """The faces with their places in the table, from 1 on."""
    return (
        func.unnest(cast(list(face_ids), ARRAY(UUID_TYPE(as_uuid=True))))
        .table_valued("face_id", with_ordinality="row", name="given")
        .render_derived()
    )


def _photos(library_id: str, face_ids: Sequence[UUID]) -> Select[Any]:
    given = _given(face_ids)
    photo = and_(assets.c.library_id == faces.c.library_id, assets.c.asset_id == faces.c.asset_id)
    double = and_(allowed_doubles.c.library_id == faces.c.library_id, allowed_doubles.c.asset_id == faces.c.asset_id)
    return (
        select(
            given.c.row,
            assets.c.captured_at,
            assets.c.captured_precision,
            allowed_doubles.c.asset_id.is_not(None).label("may_double"),
        )
        .select_from(given)
        .join(faces, faces.c.face_id == given.c.face_id)
        .join(assets, photo)
        .outerjoin(assignments, assignments.c.face_id == faces.c.face_id)
        .outerjoin(allowed_doubles, double)
        .where(faces.c.library_id == library_id, faces.c.state == "ACTIVE", assignments.c.face_id.is_(None))
    )


def _refused(face_ids: Sequence[UUID]) -> Any:
    given = _given(face_ids)
    return select(given.c.row, exclusions.c.person_id).join(exclusions, exclusions.c.face_id == given.c.face_id)


def _shown(library_id: str, face_ids: Sequence[UUID]) -> Select[Any]:
    given = _given(face_ids)
    other = faces.alias("other")
    return (
        select(given.c.row, assignments.c.person_id)
        .select_from(given)
        .join(faces, faces.c.face_id == given.c.face_id)
        .join(
            other,
            and_(
                other.c.library_id == faces.c.library_id,
                other.c.asset_id == faces.c.asset_id,
                other.c.state == "ACTIVE",
            ),
        )
        .join(assignments, assignments.c.face_id == other.c.face_id)
        .where(faces.c.library_id == library_id)
        .distinct()
    )


async def _read_pairs(tx: Transaction, statement: Any, numbers: Mapping[UUID, int]) -> Pairs:
    found = [(row.row - 1, numbers[row.person_id]) for row in await tx.rows(statement) if row.person_id in numbers]
    found.sort()
    pairs = np.array(found, dtype=np.int32).reshape(-1, 2)
    return Pairs(pairs[:, 0], pairs[:, 1])
