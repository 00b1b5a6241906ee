"""Taking a change back, at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.persons.domain.fields import tell_persons
from services.persons.domain.model import Change, ChangeKind, PersonsDeps
from services.persons.domain.people import decides_derived, write_fields
from services.persons.domain.reverting import Left, Reversal, plan_reversal
from services.persons.domain.settling import settle_change
from services.persons.repository.assignments import lock_standings
from services.persons.repository.change_items import ExclusionItem, FaceItem, list_exclusion_items, list_face_items
from services.persons.repository.changes import has_open_job, mark_undone, record_change
from services.persons.repository.doubles import lock_photos, read_doubles, write_doubles
from services.persons.repository.exclusions import (
    list_exclusions_from,
    list_exclusions_of,
    make_exclusions,
    take_back_exclusions,
)
from services.persons.repository.ledger_pages import LedgerEntry, lock_chain
from services.persons.repository.matchers import lock_active_matcher, set_active_matcher
from services.persons.repository.merging import list_links
from services.persons.repository.moves import move_faces
from services.persons.repository.receipts import find_receipts
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import PreconditionFailed, Reason
from shared.jobs.asking import follow_people_later
from shared.jobs.model import ItemFailure


@dataclass(frozen=True, slots=True)
class Undo:
    """A change to take back. ``kind``: what to enter it as."""

    library_id: str
    change_id: UUID
    reason: str = ""
    kind: ChangeKind = ChangeKind.UNDONE


@dataclass(frozen=True, slots=True)
class ChangeUndone:
    """The undo's own change (None if there was nothing left to revert), how much it reverted, and what it left alone."""

    change_id: UUID | None
    reverted: int
    skipped: list[ItemFailure]


async def undo_change(tx: Transaction, deps: PersonsDeps, command: Undo, caller: Caller) -> ChangeUndone:
    """Take back what is still as the change left it, in a fixed number of statements whatever the number of faces.

    The change of a job that is under way is undone also before it has any face: the job sees it, and ends.
    Raises :class:`NotFound`, and :class:`PreconditionFailed` with CHANGE_NOT_UNDOABLE for what is undone already or about a
    person who was forgotten.
    """
    entry = await lock_chain(tx, command.library_id, command.change_id)
    _refuse_undone(entry)
    faces = await list_face_items(tx, command.change_id)
    exclusions = await list_exclusion_items(tx, command.change_id)
    left = await _lock_left(tx, command, entry, faces, exclusions)
    # Beside the event loop: a hundred thousand faces take a while to decide about.
    made = await asyncio.to_thread(plan_reversal, left)
    if not made.count and not await has_open_job(tx, command.library_id, command.change_id):
        return ChangeUndone(None, 0, made.skipped)
    change = _describe(command, entry, made)
    change_id = await record_change(tx, deps, command.library_id, change, caller)
    await take_back_exclusions(tx, change_id, [each.exclusion_id for each in made.take_back])
    await move_faces(tx, deps.clock, command.library_id, change_id, made.moves)
    await make_exclusions(tx, command.library_id, change_id, made.exclude)
    for person_id, (_, then) in sorted(made.persons.items()):
        await write_fields(tx, deps, person_id, then)
    if made.doubles:
        await write_doubles(tx, deps.clock, command.library_id, made.doubles, caller.subject)
    if made.matcher is not None:
        await set_active_matcher(tx, deps.clock, command.library_id, made.matcher[1])
    await mark_undone(tx, command.change_id, change_id)
    people = list(change.person_ids)
    await follow_people_later(tx, deps.ids, deps.clock, command.library_id, people, caller.subject)
    face_ids = [move.face_id for move in made.moves]
    touched = [person_id for person_id, (_, then) in made.persons.items() if decides_derived(then)]
    await settle_change(tx, deps, command.library_id, change_id, face_ids, touched)
    return ChangeUndone(change_id, made.count, made.skipped)


async def _lock_left(
    tx: Transaction, command: Undo, entry: LedgerEntry, faces: list[FaceItem], exclusions: list[ExclusionItem]
) -> Left:
    # Photos before faces and persons, as everybody locks them.
    photos = await lock_photos(tx, command.library_id, list(entry.after.get("doubles", ())))
    doubles = await read_doubles(tx, command.library_id, photos)
    face_ids = {item.face_id for item in faces} | {item.exclusion.face_id for item in exclusions}
    # With everybody they have become part of since; a chain that grows while we wait is refused by whoever follows it.
    links = await list_links(tx, _list_people(entry, faces, exclusions))
    standings, people = await lock_standings(tx, command.library_id, face_ids, links.keys())
    # Somebody who is being forgotten is gone already, as far as an undo can tell.
    forgotten = await find_receipts(tx, people)
    return Left(
        before=entry.before,
        after=entry.after,
        faces=faces,
        exclusions=exclusions,
        standings=standings,
        people={person_id: person for person_id, person in people.items() if person_id not in forgotten},
        exclusions_of=await list_exclusions_of(tx, face_ids),
        exclusions_from=await list_exclusions_from(tx, _list_merged_again(entry)),
        doubles={asset_id: asset_id in doubles for asset_id in photos},
        matcher=await lock_active_matcher(tx, command.library_id) if "matcher" in entry.after else None,
    )


def _list_merged_again(entry: LedgerEntry) -> list[UUID]:
    """The persons whom undoing this change would make part of others."""
    return [UUID(name) for name, fields in entry.before.get("persons", {}).items() if fields.get("merged_into")]


def _list_people(entry: LedgerEntry, faces: Iterable[FaceItem], exclusions: Iterable[ExclusionItem]) -> set[UUID]:
    people = set(entry.person_ids)
    people |= {hold.person_id for item in faces for hold in (item.before, item.after) if hold}
    people |= {item.exclusion.person_id for item in exclusions}
    for fields in (*entry.before.get("persons", {}).values(), *entry.after.get("persons", {}).values()):
        if fields.get("merged_into"):
            people.add(UUID(fields["merged_into"]))
    return people


def _describe(command: Undo, entry: LedgerEntry, made: Reversal) -> Change:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    if made.persons:
        before |= tell_persons({person_id: now for person_id, (now, _) in made.persons.items()})
        after |= tell_persons({person_id: then for person_id, (_, then) in made.persons.items()})
    if made.doubles:
        before["doubles"] = {asset_id: not allowed for asset_id, allowed in made.doubles.items()}
        after["doubles"] = made.doubles
    if made.matcher is not None:
        before["matcher"], after["matcher"] = made.matcher
    moved = [move.face_id for move in made.moves]
    freed = [each.face_id for each in (*made.take_back, *made.exclude)]
    return Change(
        command.kind,
        # A face or an exclusion may be somebody's of whom the change says nothing: whom its person became part of since.
        person_ids={*entry.person_ids, *made.persons, *made.touched},
        face_ids=list(dict.fromkeys((*moved, *freed))),
        before=before,
        after=after,
        reason=command.reason,
        undoes=entry.change_id,
    )


def _refuse_undone(entry: LedgerEntry) -> None:
    """Raise :class:`PreconditionFailed` for a change that is undone already or can never be."""
    forgotten = entry.kind is ChangeKind.PERSON_FORGOTTEN or "forgotten" in entry.after
    if entry.undone_by is None and not forgotten:
        return
    told = "is about a person who was forgotten" if forgotten else f"is undone already, by '{entry.undone_by}'"
    raise PreconditionFailed(
        f"change '{entry.change_id}' {told}",
        reason=Reason.CHANGE_NOT_UNDOABLE,
        metadata={"change_id": str(entry.change_id), "kind": entry.kind.value, "undone_by": str(entry.undone_by or "")},
    )
