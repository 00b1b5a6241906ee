"""Faces of another system: matched to stored ones by their boxes, with vectors of the model that system declares.

An import adds, and never takes away. A face that is there keeps its row and all work people did on it, and its own vector
if a model of this house made that from the photo: only what an import wrote may an import replace. A photo nobody looked at
stays NEVER, so that a backfill still finds the faces that the other system missed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.inference.given import estimate_landmarks
from services.detection.repository.importing import (
    StoredPlace,
    add_embeddings,
    add_face_counts,
    copy_faces,
    lock_places,
    lock_sizes,
    replace_embeddings,
)
from services.detection.repository.models import (
    activate_first_model,
    find_active_version,
    hold_versions,
    list_versions,
)
from shared.config import QualitySettings
from shared.db.engine import Transaction
from shared.db.outbox import queue_faces
from shared.errors import PreconditionFailed, Reason
from shared.faces.boxes import Box, iou_matrix, match_boxes
from shared.faces.quality import measure_placed
from shared.ids import IdFactory
from shared.jobs.model import ItemFailure

MAX_NAMED = 1000
FOREIGN_PACK = "imported"


@dataclass(frozen=True, slots=True, eq=False)
class ImportedFaces:
    """Faces to import, as columns of N rows.

    ``names`` is how the caller calls each; ``boxes`` (N, 4) x, y, width, height and ``landmarks`` (N, 5, 2) are float32 in
    pixels of the upright photo; ``seen`` (N,) is False where the landmarks are estimated from the box. ``embeddings`` are in
    stored form, ``norms`` (N,) their lengths as they came.
    """

    names: list[str]
    asset_ids: list[str]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    seen: NDArray[np.bool_]
    confidences: NDArray[np.float32]
    embeddings: list[bytes]
    norms: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The same columns with only these rows, in their order."""
        picked = rows.tolist()
        return type(self)(
            names=[self.names[row] for row in picked],
            asset_ids=[self.asset_ids[row] for row in picked],
            boxes=self.boxes[rows],
            landmarks=self.landmarks[rows],
            seen=self.seen[rows],
            confidences=self.confidences[rows],
            embeddings=[self.embeddings[row] for row in picked],
            norms=self.norms[rows],
        )


@dataclass(slots=True)
class ImportTally:
    """What became of the faces so far; ``failures`` are the first of those that failed."""

    created: int = 0
    matched: int = 0
    failed: int = 0
    failures: list[ItemFailure] = field(default_factory=list)

    def fail(self, failures: Sequence[ItemFailure]) -> None:
        """Count failed faces, and name them up to the limit."""
        self.failed += len(failures)
        self.failures += failures[: MAX_NAMED - len(self.failures)]

    def add(self, other: ImportTally) -> None:
        """Count what another message brought."""
        self.created += other.created
        self.matched += other.matched
        self.failed += other.failed
        self.failures += other.failures[: MAX_NAMED - len(self.failures)]


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """Rows of an import by what is to be done: ``new`` faces, and ``known`` rows with the stored face of each."""

    new: NDArray[np.int64]
    known: NDArray[np.int64]
    known_ids: list[UUID]
    matched: int


async def refuse_unknown_model(tx: Transaction, library_id: str, model_version: str) -> bool:
    """Raise :class:`PreconditionFailed` with MODEL_MISMATCH if the library has a model, but not this one.

    A model on the way in or out is known as well: vectors of two models never share a collection. Answers whether the faces
    are to be searched by this one: it is the active model, or will be the library's first.
    """
    active = await find_active_version(tx, library_id)
    if active is not None:
        _refuse_unless_known(active, await list_versions(tx, library_id), model_version)
    return active in (None, model_version)


async def hold_imported_model(
    tx: Transaction, deps: DetectionDeps, library_id: str, model: PackDescription, *, searched: bool
) -> None:
    """Make ``model`` the library's if it has none, and see to it that the library's models stay until the transaction ends.

    As for faces that are detected (:func:`hold_model`): those stored uncommitted while the library is cut over would be counted
    by nobody, and be found by no search. Raises :class:`PreconditionFailed` with MODEL_MISMATCH for an unknown model, and if
    the faces were to be ``searched`` by this one and the library was cut over since. To be called with photos locked, faces
    not yet.
    """
    await activate_first_model(tx, deps.clock, library_id, model)
    active, known = await hold_versions(tx, library_id)
    _refuse_unless_known(active, {active} if searched else known, model.model_version)


async def store_imported(
    tx: Transaction,
    deps: DetectionDeps,
    quality: QualitySettings,
    library_id: str,
    model: PackDescription,
    faces: ImportedFaces,
    *,
    searched: bool = True,
) -> ImportTally:
    """Store one message of an import; a fixed number of statements, whatever the number of faces.

    Faces of photos that are not registered fail with RESOURCE_NOT_FOUND, those whose centre lies outside a photo of known size
    with INVALID_FIELD; a message of nothing else does not decide on the library's model. Locks photos, models, then faces,
    each in order of id; raises as :func:`hold_imported_model`.
    """
    model_version = model.model_version
    sizes = await lock_sizes(tx, library_id, list(set(faces.asset_ids)))
    tally = ImportTally()
    faces = _leave_out_misplaced(faces, sizes, tally)
    if not faces.names:
        return tally
    await hold_imported_model(tx, deps, library_id, model, searched=searched)
    stored = await lock_places(tx, library_id, sorted(set(faces.asset_ids)))
    plan = plan_import(faces, stored, deps.settings.redetect_iou)
    new_ids = await _create(tx, deps, quality, library_id, model_version, faces.take(plan.new))
    known = faces.take(plan.known)
    changed = await replace_embeddings(
        tx, library_id, model_version, plan.known_ids, known.embeddings, known.norms.tolist()
    )
    await queue_faces(tx, deps.clock, library_id, [*new_ids, *changed])
    tally.created, tally.matched = len(new_ids), plan.matched
    return tally


def plan_import(faces: ImportedFaces, stored: Sequence[StoredPlace], min_iou: float) -> ImportPlan:
    """Which faces are stored already: photo by photo, one to one, by an overlap of at least ``min_iou`` (IoU).

    Faces left over that overlap another of the same message so much are that one once more, as no detector gives two boxes
    for a face: they count as matched, and the first keeps its vector.
    """
    places: dict[str, list[StoredPlace]] = defaultdict(list)
    for place in stored:
        places[place.asset_id].append(place)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, asset_id in enumerate(faces.asset_ids):
        rows_of[asset_id].append(row)
    new: list[int] = []
    known: dict[int, UUID] = {}
    for asset_id, rows in rows_of.items():
        boxes, there = faces.boxes[rows], places.get(asset_id, [])
        pairs = match_boxes(boxes, np.array([place.box for place in there]), min_iou) if there else []
        known |= {rows[given]: there[place].face_id for given, place, _ in pairs}
        taken = {given for given, _, _ in pairs}
        left = [given for given in range(len(rows)) if given not in taken]
        if left and len(rows) > 1:
            close = iou_matrix(boxes, boxes) >= min_iou
            left = _without_repeats(left, sorted(taken), close)
        new += [rows[given] for given in left]
    order = sorted(known)
    return ImportPlan(
        new=np.array(sorted(new), np.int64),
        known=np.array(order, np.int64),
        known_ids=[known[row] for row in order],
        matched=len(faces.names) - len(new),
    )


def estimate_missing(
    boxes: NDArray[np.float32], landmarks: NDArray[np.float32], seen: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """``landmarks`` (N, 5, 2), those not ``seen`` (N,) replaced by the mean face upright in its box (N, 4)."""
    # They lie about a box's middle in proportion to the root of its area.
    unit = estimate_landmarks(Box(-0.5, -0.5, 1.0, 1.0))
    sides = np.sqrt(boxes[:, 2] * boxes[:, 3])
    estimated = unit * sides[:, None, None] + (boxes[:, :2] + boxes[:, 2:] / 2)[:, None]
    return np.where(seen[:, None, None], landmarks, estimated).astype(np.float32)


async def _create(
    tx: Transaction,
    deps: DetectionDeps,
    quality: QualitySettings,
    library_id: str,
    model_version: str,
    faces: ImportedFaces,
) -> list[UUID]:
    if not faces.names:
        return []
    # In order of id, as everybody locks faces.
    face_ids = _new_ids(deps.ids, len(faces.names))
    known = measure_placed(faces.landmarks, faces.seen, faces.confidences, quality)
    await copy_faces(
        tx, deps.clock, library_id, face_ids, faces.asset_ids, faces.boxes, faces.landmarks, faces.confidences, known
    )
    await add_embeddings(tx, library_id, model_version, face_ids, faces.embeddings, faces.norms.tolist())
    await add_face_counts(tx, deps.clock, library_id, Counter(faces.asset_ids))
    return face_ids


def _new_ids(ids: IdFactory, count: int) -> list[UUID]:
    return sorted(ids.new_uuid() for _ in range(count))


def _without_repeats(left: Sequence[int], taken: Sequence[int], close: NDArray[np.bool_]) -> list[int]:
    """Those of ``left`` that are close to none before them, and to none that is matched."""
    placed = list(taken)
    kept = []
    for given in left:
        if not close[given, placed].any():
            placed.append(given)
            kept.append(given)
    return kept


def _leave_out_misplaced(
    faces: ImportedFaces, sizes: Mapping[str, tuple[int, int]], tally: ImportTally
) -> ImportedFaces:
    """The faces that lie on one of these photos, the others counted as failed."""
    failures = [_find_misplaced(faces, row, sizes) for row in range(len(faces.names))]
    tally.fail([failure for failure in failures if failure])
    kept = np.array([failure is None for failure in failures], np.bool_)
    return faces if kept.all() else faces.take(np.flatnonzero(kept))


def _find_misplaced(faces: ImportedFaces, row: int, sizes: Mapping[str, tuple[int, int]]) -> ItemFailure | None:
    name, asset_id = faces.names[row], faces.asset_ids[row]
    if asset_id not in sizes:
        return ItemFailure(name, Reason.RESOURCE_NOT_FOUND.value, f"asset '{asset_id}' is not registered")
    width, height = sizes[asset_id]
    x, y, box_width, box_height = faces.boxes[row].tolist()
    if width and (x + box_width / 2 >= width or y + box_height / 2 >= height):
        message = f"the centre of box lies outside the photo of {width} x {height} pixels"
        return ItemFailure(name, Reason.INVALID_FIELD.value, message)
    return None


def _refuse_unless_known(active: str | None, known: Collection[str | None], model_version: str) -> None:
    if model_version not in known:
        raise PreconditionFailed(
            f"the library's model is '{active}', the faces are of '{model_version}'",
            reason=Reason.MODEL_MISMATCH,
            metadata={"expected": active or "", "actual": model_version},
        )
