"""Asking about the faces most like some that were just labelled.

It is find-more for one person, with given faces in place of the prototypes that would be chosen: the same search, judged by the
same rules. Given faces that are no prototypes count as if they were, for this once, so that a look nobody knew the person by
leads to others like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.suggestions.domain.discovering import Finder, FindMore
from services.suggestions.domain.model import SuggestionMethod, SuggestionsDeps
from services.suggestions.domain.people import read_people
from services.suggestions.domain.ports import CentroidSearch, FaceSearch
from services.suggestions.repository.known import check_persons, find_active_model
from services.suggestions.repository.own_faces import check_own_faces, list_own_faces
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.faces.embeddings import decode_embeddings
from shared.jobs.model import Job, NewJob
from shared.jobs.repository import create_job

PROPAGATE: Final = "suggestions.propagate_label"


@dataclass(frozen=True, slots=True)
class PropagateLabel:
    """Whose faces to look for, and from which of theirs."""

    library_id: str
    person_id: UUID
    face_ids: Sequence[UUID]


async def start_propagate(tx: Transaction, deps: SuggestionsDeps, command: PropagateLabel, caller: Caller) -> Job:
    """Create the job.

    Raises :class:`NotFound` for an unknown person or face, :class:`PreconditionFailed` for a person merged or deleted and for
    a face that is not theirs.
    """
    await check_persons(tx, command.library_id, [command.person_id])
    await check_own_faces(tx, command.library_id, command.person_id, command.face_ids)
    new = NewJob(
        library_id=command.library_id,
        kind=PROPAGATE,
        unit="face",
        slices=[{"person_id": str(command.person_id), "face_ids": [str(face_id) for face_id in command.face_ids]}],
        created_by=caller.subject,
        total=len(command.face_ids),
    )
    return await create_job(tx, new, deps.ids, deps.clock)


async def make_propagation(
    database: Database, deps: SuggestionsDeps, faces: FaceSearch, centroids: CentroidSearch, command: PropagateLabel
) -> Finder | None:
    """A finder that searches with the given faces.

    None if there is nothing to search with: no face of them is the person's any more, or the model in use has seen none.
    """
    library_id, person_id = command.library_id, command.person_id
    async with database.snapshot() as tx:
        model = await find_active_model(tx, library_id)
        if model is None:
            return None
        given = await list_own_faces(tx, library_id, model.model_version, person_id, command.face_ids)
        people = await read_people(tx, library_id, model, given)
    if not given or person_id not in people.numbers:
        return None
    find_more = FindMore(
        library_id=library_id,
        person_ids=[person_id],
        method=SuggestionMethod.PROPAGATION,
        max_per_person=deps.settings.max_per_person,
        min_confidence=deps.settings.min_confidence,
    )
    vectors = decode_embeddings([each.embedding for each in given], model.dimension)
    return Finder(database, deps, faces, centroids, find_more, model, people, given={person_id: vectors})
