"""Training a matcher and choosing the active one: use cases on a transaction. The learning itself lies between them.

A matcher is a claim about people nobody has named yet, so it is measured on persons it has not seen, and there must be enough
of those: a third of the persons is held out, and of 20 persons with five faces each come 4,750 pairs of different persons, of
which FAR 1e-3 lets four pass. With fewer the figure would be no figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np

from services.persons.domain.matcher import Confirmed, LibraryModel, Matcher, MatcherReport, NamedPerson, TrainingFaces
from services.persons.domain.model import Change, ChangeKind, PersonsDeps
from services.persons.matching.request import TrainedMatcher
from services.persons.repository.changes import record_change
from services.persons.repository.matchers import (
    count_confirmed,
    find_library_model,
    get_active_matcher,
    get_matcher,
    insert_matcher,
    list_confirmed,
    lock_active_matcher,
    read_confirmed,
    set_active_matcher,
)
from shared.caller import Caller
from shared.config import PersonSettings
from shared.db.engine import Transaction
from shared.errors import Contention, PreconditionFailed, Reason
from shared.faces.projection import Projection
from shared.jobs.model import Job, NewJob
from shared.jobs.repository import create_job

TRAIN_MATCHER: Final = "persons.train_matcher"
_SHOWN_NAMES: Final = 10
_SHOWN_NAME: Final = 40


@dataclass(frozen=True, slots=True)
class TrainMatcher:
    """A training to start, and what is to follow if it was worth it."""

    library_id: str
    activate_if_better: bool
    recluster_after: bool
    seed: int
    epochs: int

    def describe(self, caller: Caller) -> dict[str, Any]:
        """As the job keeps it, with the request it came by."""
        return {
            "activate_if_better": self.activate_if_better,
            "recluster_after": self.recluster_after,
            "seed": self.seed,
            "epochs": self.epochs,
            "rpc": caller.rpc,
            "request_id": caller.request_id,
        }

    @classmethod
    def parse(cls, library_id: str, spec: Mapping[str, Any]) -> TrainMatcher:
        """From what :meth:`describe` made."""
        names = ("activate_if_better", "recluster_after", "seed", "epochs")
        return cls(library_id, **{name: spec[name] for name in names})


@dataclass(frozen=True, slots=True)
class MatcherStored:
    """A new matcher, and the change that made it the active one, if it became that."""

    matcher: Matcher
    change_id: UUID | None


@dataclass(frozen=True, slots=True)
class MatcherActivated:
    """The matcher that is active now (None: none is), and the entry in the ledger (None if nothing changed)."""

    matcher: Matcher | None
    change_id: UUID | None


async def start_training(tx: Transaction, deps: PersonsDeps, command: TrainMatcher, caller: Caller) -> Job:
    """Create the job. Raises :class:`PreconditionFailed` with TOO_FEW_FACES, naming the persons nearest to what is needed."""
    model = await find_library_model(tx, command.library_id)
    settings = deps.settings
    if model is None:
        raise _too_few(settings, Confirmed(0, 0, 0))
    found = await count_confirmed(tx, command.library_id, model, settings.matcher_min_faces)
    if found.persons < settings.matcher_min_persons:
        lists = [
            await list_confirmed(tx, command.library_id, model, settings.matcher_min_faces, _SHOWN_NAMES, enough=enough)
            for enough in (True, False)
        ]
        raise _too_few(settings, found, enough=lists[0], short=lists[1])
    new = NewJob(
        library_id=command.library_id,
        kind=TRAIN_MATCHER,
        unit="epoch",
        slices=[{}],
        created_by=caller.subject,
        spec=command.describe(caller),
        total=command.epochs,
    )
    return await create_job(tx, new, deps.ids, deps.clock)


async def read_training_faces(
    tx: Transaction, deps: PersonsDeps, command: TrainMatcher
) -> tuple[LibraryModel, TrainingFaces]:
    """The faces to learn from, in a snapshot: see :func:`read_confirmed` for which.

    Raises :class:`PreconditionFailed` with TOO_FEW_FACES if there are too few by now. It names nobody: a job's failure is kept.
    """
    model = await find_library_model(tx, command.library_id)
    settings = deps.settings
    if model is None:
        raise _too_few(settings, Confirmed(0, 0, 0))
    faces = await read_confirmed(
        tx,
        command.library_id,
        model,
        min_faces=settings.matcher_min_faces,
        max_per_person=max(settings.matcher_min_faces, settings.matcher_max_faces_per_person),
        max_faces=settings.matcher_max_faces,
        seed=command.seed,
    )
    # The limit may have cut through the last person.
    sizes = np.bincount(faces.people, minlength=len(faces.person_ids))
    kept = (sizes >= settings.matcher_min_faces)[faces.people]
    faces = TrainingFaces(faces.vectors[kept], faces.people[kept], faces.person_ids)
    persons = len(Counter(faces.people.tolist()))
    if persons < settings.matcher_min_persons:
        raise _too_few(settings, Confirmed(persons, len(faces.people), 0))
    return model, faces


async def store_matcher(
    tx: Transaction,
    deps: PersonsDeps,
    command: TrainMatcher,
    model: LibraryModel,
    job_id: UUID,
    trained: TrainedMatcher,
    caller: Caller,
) -> MatcherStored:
    """Store a trained matcher and, if that was asked for and it is better, make it the active one.

    Raises :class:`Contention` if the library was moved to another model since: that has to be learnt anew.
    """
    active = await lock_active_matcher(tx, command.library_id)
    if await find_library_model(tx, command.library_id) != model:
        raise Contention(f"the library's model was changed while a matcher learnt '{model.model_version}'")
    matcher_id = deps.ids.new_uuid()
    report = MatcherReport.of(trained)
    await insert_matcher(
        tx, deps.clock, matcher_id, command.library_id, model, job_id, Projection(trained.matrix), report
    )
    change_id = None
    if command.activate_if_better and report.better:
        change_id = await _activate(tx, deps, command.library_id, active, str(matcher_id), caller)
    return MatcherStored(await get_matcher(tx, command.library_id, matcher_id), change_id)


async def activate_matcher(
    tx: Transaction, deps: PersonsDeps, library_id: str, matcher_id: UUID | None, caller: Caller
) -> MatcherActivated:
    """Make a matcher the active one, or none; a change of the ledger unless it is that already.

    Raises :class:`NotFound`, and :class:`PreconditionFailed` with MODEL_MISMATCH for a matcher of another model than the
    library works with.
    """
    active = await lock_active_matcher(tx, library_id)
    if matcher_id is not None:
        matcher = await get_matcher(tx, library_id, matcher_id)
        model = await find_library_model(tx, library_id)
        expected = model.model_version if model else ""
        if matcher.model_version != expected:
            raise PreconditionFailed(
                f"matcher '{matcher_id}' was learnt in '{matcher.model_version}', the library works with '{expected}'",
                reason=Reason.MODEL_MISMATCH,
                metadata={"expected": expected, "actual": matcher.model_version},
            )
    wanted = str(matcher_id) if matcher_id is not None else None
    change_id = await _activate(tx, deps, library_id, active, wanted, caller) if active != wanted else None
    return MatcherActivated(await get_active_matcher(tx, library_id), change_id)


async def _activate(
    tx: Transaction, deps: PersonsDeps, library_id: str, active: str | None, wanted: str | None, caller: Caller
) -> UUID:
    await set_active_matcher(tx, deps.clock, library_id, wanted)
    change = Change(ChangeKind.MATCHER_ACTIVATED, before={"matcher": active}, after={"matcher": wanted})
    return await record_change(tx, deps, library_id, change, caller)


def _too_few(
    settings: PersonSettings, found: Confirmed, enough: Sequence[NamedPerson] = (), short: Sequence[NamedPerson] = ()
) -> PreconditionFailed:
    persons, each = settings.matcher_min_persons, settings.matcher_min_faces
    parts = [f"a matcher is learnt from at least {persons} persons with {each} faces each that a human confirmed"]
    parts.append(f"{found.persons} have that many{_name(enough, found.persons)}")
    if found.short_persons:
        parts.append(f"{found.short_persons} have too few{_name(short, found.short_persons)}")
    return PreconditionFailed(
        "; ".join(parts),
        reason=Reason.TOO_FEW_FACES,
        metadata={
            "persons": str(found.persons),
            "faces": str(found.faces),
            "persons_needed": str(persons),
            "faces_needed": str(persons * each),
        },
    )


def _name(shown: Sequence[NamedPerson], count: int) -> str:
    """``": Anna (5), Bert (3) and 7 more"``; nothing where nobody is to be named."""
    if not shown:
        return ""
    names = [
        f"{person.name if len(person.name) <= _SHOWN_NAME else person.name[: _SHOWN_NAME - 1] + '…'} ({person.faces})"
        for person in shown
    ]
    more = f" and {count - len(shown)} more" if count > len(shown) else ""
    return f": {', '.join(names)}{more}"
