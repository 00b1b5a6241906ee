"""Asking about pairs that a machine was sure of and may not assign.

Mostly these are second faces of one person in one photo. They are asked about with the evidence there is for them now, and
as sure as the machine was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.suggestions.domain.discovering import note_same_photo
from services.suggestions.domain.judging import Candidates, Pair, judge_pairs
from services.suggestions.domain.model import Question, SuggestionsDeps
from services.suggestions.domain.people import make_rules, read_people
from services.suggestions.repository.candidates import list_found_faces
from services.suggestions.repository.known import find_active_model
from shared.db.engine import Database
from shared.faces.embeddings import decode_embeddings


async def make_pair_questions(
    database: Database, deps: SuggestionsDeps, library_id: str, confidences: Mapping[Pair, float]
) -> list[Question]:
    """Questions about (face, person) pairs and how sure each is, 0..1; no transaction is open while it computes.

    Left out: faces that have a person or are not ACTIVE, persons merged or deleted or of whom nothing is known, and
    everything where nothing has been detected yet.
    """
    async with database.snapshot() as tx:
        model = await find_active_model(tx, library_id)
        if model is None:
            return []
        people = await read_people(tx, library_id, model)
        face_ids, persons = {face_id for face_id, _ in confidences}, {person_id for _, person_id in confidences}
        found = await list_found_faces(tx, library_id, model.model_version, face_ids, persons)
    candidates = Candidates(
        [each.face for each in found], decode_embeddings([each.embedding for each in found], model.dimension)
    )
    rules = make_rules(model, deps.settings)
    questions = await asyncio.to_thread(judge_pairs, candidates, people, rules, confidences)
    shown = {(each.face.asset_id, person_id) for each in found for person_id in each.shown}
    return [note_same_photo(question, shown) for question in questions]
