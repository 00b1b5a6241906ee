"""Finding more faces of people, batch by batch of persons.

The cost of a batch does not depend on how many faces are found: one search (or one call per person of the clustering
service), and four statements, after two that read the library's people for a whole slice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from services.suggestions.domain.judging import Candidates, judge_faces, pick_questions
from services.suggestions.domain.model import Question, SuggestionMethod, SuggestionsDeps
from services.suggestions.domain.people import (
    KnownPeople,
    choose_query_prototypes,
    make_rules,
    read_people,
)
from services.suggestions.domain.ports import CentroidSearch, FaceSearch, PersonQuery
from services.suggestions.repository.candidates import (
    FoundFace,
    Pair,
    list_found_faces,
    read_person_pairs,
)
from services.suggestions.repository.known import (
    ActiveModel,
    check_persons,
    find_active_model,
    list_persons_to_ask_about,
)
from services.suggestions.repository.questions import store_questions
from shared.caller import Caller
from shared.db.engine import Database, Transaction
from shared.faces.embeddings import Vectors, decode_embeddings
from shared.jobs.model import Job, Json, NewJob
from shared.jobs.repository import create_job

FIND_MORE = "suggestions.find_more"
SLICE_PERSONS = 50
BATCH_PERSONS = 10
# Fewer persons at once where each may bring many faces.
BATCH_FACES = 10_000
# Calls of the clustering service at once, per slice.
CENTROID_CALLS = 4
# More would make the query larger than what it finds; the rest is left out after the search.
EXCLUDED_IN_QUERY = 1000


@dataclass(frozen=True, slots=True)
class FindMore:
    """For whom to look, and how. ``person_ids`` empty = every active person with faces. ``candidates``: at least so many faces
    may be found by each vector; never fewer than may be asked about.
    """

    library_id: str
    person_ids: Sequence[UUID]
    method: SuggestionMethod
    max_per_person: int
    min_confidence: float
    candidates: int = 0


@dataclass(frozen=True, slots=True)
class Looked:
    """What a search came to: the faces, the question about each whose best person is among those looked for, however unsure,
    and the pairs that were open before.
    """

    faces: list[FoundFace]
    questions: list[Question]
    open_pairs: set[Pair]


@dataclass(frozen=True, slots=True)
class Found:
    """What a batch came to: the questions to store, how many faces were judged, and what was open before."""

    questions: list[Question]
    candidates: int
    open_pairs: set[Pair]


@dataclass(frozen=True, slots=True)
class Stored:
    """Questions asked anew (also those expired before), and open ones that were kept up to date."""

    created: int
    kept: int


async def start_find_more(tx: Transaction, deps: SuggestionsDeps, command: FindMore, caller: Caller) -> Job:
    """Create the job; for whom it looks is settled here. Raises as :func:`create_person_job`."""
    spec = {
        "method": command.method.value,
        "max_per_person": command.max_per_person,
        "min_confidence": command.min_confidence,
    }
    return await create_person_job(tx, deps, FIND_MORE, command.library_id, command.person_ids, spec, caller)


async def create_person_job(
    tx: Transaction,
    deps: SuggestionsDeps,
    kind: str,
    library_id: str,
    person_ids: Sequence[UUID],
    spec: Json,
    caller: Caller,
) -> Job:
    """A job about these persons, or about every active one with faces where none is named, in slices of so many.

    Raises :class:`NotFound` for an unknown person, :class:`PreconditionFailed` for one merged or deleted.
    """
    if person_ids:
        await check_persons(tx, library_id, person_ids)
    else:
        person_ids = await list_persons_to_ask_about(tx, library_id)
    names = [str(person_id) for person_id in person_ids]
    slices = [{"person_ids": names[at : at + SLICE_PERSONS]} for at in range(0, len(names), SLICE_PERSONS)]
    new = NewJob(
        library_id=library_id,
        kind=kind,
        unit="person",
        # A job has at least one slice, also where there is nobody to look for.
        slices=slices or [{"person_ids": []}],
        created_by=caller.subject,
        spec=spec,
        total=len(names),
    )
    return await create_job(tx, new, deps.ids, deps.clock)


class Finder:
    """Looks for faces of some people of one library, as they are known when it is made.

    ``given``: vectors (Q, D) to search with for a person, in place of prototypes that it would choose.
    """

    def __init__(
        self,
        database: Database,
        deps: SuggestionsDeps,
        faces: FaceSearch,
        centroids: CentroidSearch,
        command: FindMore,
        model: ActiveModel,
        people: KnownPeople,
        given: Mapping[UUID, Vectors] | None = None,
    ) -> None:
        self._database = database
        self._deps = deps
        self._faces = faces
        self._centroids = centroids
        self._command = command
        self._model = model
        self._people = people
        self._given = given or {}
        self.rules = make_rules(model, deps.settings)
        # Each vector may bring as many as may be asked.
        self._limit = max(deps.settings.candidates_per_query, command.max_per_person, command.candidates)
        self.batch_persons = max(1, min(BATCH_PERSONS, BATCH_FACES // self._limit))
        """How many persons to look for at a time."""

    async def find(self, person_ids: Sequence[UUID]) -> Found:
        """Questions about a batch of persons. No transaction is open while it searches or computes."""
        looked = await self.look(person_ids)
        return Found(await self.pick(looked, looked.questions), len(looked.faces), looked.open_pairs)

    async def look(self, person_ids: Sequence[UUID]) -> Looked:
        """The faces that may be these persons'. No transaction is open while it searches or computes."""
        library_id = self._command.library_id
        async with self._database.snapshot() as tx:
            pairs = await read_person_pairs(tx, person_ids)
        # With the faces being asked about: their evidence is brought up to date, and near-duplicates of them are known.
        face_ids = await self._search(person_ids, pairs.refused) | {face_id for face_id, _ in pairs.open}
        async with self._database.snapshot() as tx:
            found = await list_found_faces(tx, library_id, self._model.model_version, face_ids, person_ids)
        refused = pairs.refused | {(each.face.face_id, person_id) for each in found for person_id in each.refused}
        candidates = Candidates(
            [each.face for each in found],
            decode_embeddings([each.embedding for each in found], self._model.dimension),
        )
        # numpy lets go of the interpreter while it multiplies.
        questions = await asyncio.to_thread(
            judge_faces, candidates, self._people, self.rules, refused, frozenset(person_ids)
        )
        shown = {(each.face.asset_id, person_id) for each in found for person_id in each.shown}
        return Looked(found, [note_same_photo(question, shown) for question in questions], pairs.open)

    async def pick(self, looked: Looked, questions: Sequence[Question]) -> list[Question]:
        """Those of the questions that are worth asking; in a thread, as thousands of faces take a second."""
        return await asyncio.to_thread(
            pick_questions,
            questions,
            [each.face for each in looked.faces],
            looked.open_pairs,
            self._deps.settings,
            min_confidence=self._command.min_confidence,
            max_per_person=self._command.max_per_person,
        )

    async def store(self, tx: Transaction, job_id: UUID, person_ids: Sequence[UUID], found: Found) -> Stored:
        """Store what was found, and close what was settled meanwhile."""
        asked = await store_questions(
            tx,
            self._deps,
            self._command.library_id,
            job_id,
            self._command.method,
            found.questions,
            settle=person_ids,
        )
        return Stored(created=len(asked - found.open_pairs), kept=len(asked & found.open_pairs))

    def knows(self, person_id: UUID) -> bool:
        """Whether there is anything to recognise a person by."""
        return bool(self._people.prototype_rows(person_id))

    async def _search(self, person_ids: Sequence[UUID], refused: set[Pair]) -> set[UUID]:
        known = [person_id for person_id in person_ids if self.knows(person_id)]
        if self._command.method is SuggestionMethod.CENTROID:
            return await self._search_by_centroid(known, refused)
        return await self._faces.find_unassigned(
            self._command.library_id,
            self._model.model_version,
            [self._make_query(person_id, refused) for person_id in known],
            self._limit,
            self.rules.floor,
        )

    async def _search_by_centroid(self, person_ids: Sequence[UUID], refused: set[Pair]) -> set[UUID]:
        turns = asyncio.Semaphore(CENTROID_CALLS)

        async def search(person_id: UUID) -> set[UUID]:
            # The service does not know what was rejected: so many more must be asked for.
            limit = self._command.max_per_person + sum(owner == person_id for _, owner in refused)
            async with turns:
                return await self._centroids.find_unassigned(
                    self._command.library_id, person_id, limit, self.rules.floor
                )

        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(search(person_id)) for person_id in person_ids]
        return set[UUID]().union(*(call.result() for call in calls))

    def _make_query(self, person_id: UUID, refused: set[Pair]) -> PersonQuery:
        birth = self._people.persons[self._people.numbers[person_id]].birth_date
        excluded = sorted(face_id for face_id, owner in refused if owner == person_id)
        return PersonQuery(
            person_id=person_id,
            vectors=self._choose_vectors(person_id),
            # The newest ids first: they are of faces that are asked about today.
            excluded=tuple(excluded[-EXCLUDED_IN_QUERY:]),
            birth_year=birth.value.year if birth else None,
        )

    def _choose_vectors(self, person_id: UUID) -> Vectors:
        if person_id in self._given:
            return self._given[person_id]
        return choose_query_prototypes(self._people, person_id, self._deps.settings)


async def make_finder(
    database: Database, deps: SuggestionsDeps, faces: FaceSearch, centroids: CentroidSearch, command: FindMore
) -> Finder | None:
    """Read a library's people; None where nothing has been detected yet, so that there is nothing to find."""
    async with database.snapshot() as tx:
        model = await find_active_model(tx, command.library_id)
        if model is None:
            return None
        people = await read_people(tx, command.library_id, model)
    return Finder(database, deps, faces, centroids, command, model, people)


def note_same_photo(question: Question, shown: set[tuple[str, UUID]]) -> Question:
    """The question, saying so if its person has a face in the photo already; ``shown``: (asset, person) pairs."""
    if (question.asset_id, question.person_id) not in shown:
        return question
    return replace(question, evidence=replace(question.evidence, same_photo=True))
