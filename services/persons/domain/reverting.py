"""What undoing a change comes to: what is still as the change left it goes back, the rest is named. No I/O.

"As the change left it" is a matter of values, not of who wrote last: so an undo can be undone, and undone again. A person who
has become part of another since stands for that other: a face that went along with a later merge is still where the change left
it, and one that is to go back to a merged person goes to the survivor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from services.persons.domain.fields import Fields, describe_person
from services.persons.domain.model import Assignment, FaceStanding, Hold, Move, Person
from services.persons.repository.change_items import ExclusionItem, FaceItem
from services.persons.repository.exclusions import Exclusion
from shared.errors import Contention, Reason
from shared.jobs.model import ItemFailure

_BEING_MERGED: Final = {"status", "merged_into"}


@dataclass(frozen=True, slots=True)
class Left:
    """A change, and how things stand now, all of it locked. ``exclusions_of``: of its faces;
    ``exclusions_from``: from those who would be merged again;
    ``doubles``: of the change's photos that are still there, whether they may show one person twice.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    faces: Sequence[FaceItem]
    exclusions: Sequence[ExclusionItem]
    standings: Mapping[UUID, FaceStanding]
    people: Mapping[UUID, Person]
    exclusions_of: Mapping[tuple[UUID, UUID], Exclusion]
    exclusions_from: Mapping[UUID, Sequence[Exclusion]]
    doubles: Mapping[str, bool]
    matcher: str | None


@dataclass(slots=True)
class Reversal:
    """What to do, and what was left alone. ``touched``: who loses or gets a face or an exclusion, whoever the change named."""

    moves: list[Move] = field(default_factory=list)
    take_back: list[Exclusion] = field(default_factory=list)
    exclude: list[Exclusion] = field(default_factory=list)
    persons: dict[UUID, tuple[Fields, Fields]] = field(default_factory=dict)
    doubles: dict[str, bool] = field(default_factory=dict)
    matcher: tuple[str | None, str | None] | None = None
    touched: set[UUID] = field(default_factory=set)
    skipped: list[ItemFailure] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many faces, exclusions, persons, photos and matchers go back."""
        parts = (self.moves, self.take_back, self.exclude, self.persons, self.doubles)
        return sum(len(part) for part in parts) + (self.matcher is not None)


def plan_reversal(left: Left) -> Reversal:
    """Decide about everything a change did."""
    return _Planner(left).plan()


class _Planner:
    def __init__(self, left: Left) -> None:
        self._left = left
        self._made = Reversal()
        self._leaving: dict[UUID, int] = {}

    def plan(self) -> Reversal:
        """Persons first: whoever comes back can be given faces; and last whoever goes, as only who has none may go."""
        for person_id, after in self._left.after.get("persons", {}).items():
            self._plan_fields(UUID(person_id), self._left.before.get("persons", {}).get(person_id, {}), after)
        self._plan_taking_back()
        for item in self._left.faces:
            self._plan_face(item)
        self._plan_excluding()
        for person_id, (_, then) in self._made.persons.items():
            if then.get("merged_into") and (
                obstacle := self._find_merge_obstacle(person_id, UUID(then["merged_into"]))
            ):
                # Half a merge would be none: that what came since is to go along is for a new merge to say.
                refused = Reversal()
                refused.skipped.append(ItemFailure(str(person_id), Reason.CHANGED_SINCE.value, obstacle))
                return refused
        for person_id in list(self._made.persons):
            self._keep_if_needed(person_id)
        self._plan_doubles()
        self._plan_matcher()
        return self._made

    def _plan_fields(self, person_id: UUID, before: Fields, after: Fields) -> None:
        person = self._left.people.get(person_id)
        if person is None:
            self._skip(person_id, Reason.RESOURCE_NOT_FOUND, "the person is gone")
            return
        now = describe_person(person)
        altered = [name for name in before if name in after and after[name] != before[name]]
        still = [name for name in altered if now[name] == after[name]]
        if not set(still) >= _BEING_MERGED:
            # That somebody is part of another is one thing, said in two fields.
            still = [name for name in still if name not in _BEING_MERGED or not set(altered) >= _BEING_MERGED]
        changed = sorted(name for name in altered if name not in still and now[name] != before[name])
        if changed:
            self._skip(person_id, Reason.CHANGED_SINCE, f"changed since: {', '.join(changed)}")
        if still:
            self._made.persons[person_id] = (
                {name: now[name] for name in still},
                {name: before[name] for name in still},
            )

    def _plan_taking_back(self) -> None:
        for item in self._left.exclusions:
            pair = (item.exclusion.face_id, self._resolve(item.exclusion.person_id))
            found = self._left.exclusions_of.get(pair)
            if not item.made or found is None:
                continue
            if found.exclusion_id == item.exclusion.exclusion_id:
                self._made.take_back.append(found)
                self._made.touched.add(found.person_id)
            else:
                self._skip(pair[0], Reason.CHANGED_SINCE, f"it was excluded from person '{pair[1]}' by another change")

    def _plan_face(self, item: FaceItem) -> None:
        standing = self._left.standings.get(item.face_id)
        if standing is None:
            self._skip(item.face_id, Reason.RESOURCE_NOT_FOUND, "the face is gone")
            return
        now = standing.assignment
        if not self._is_as_left(item, now):
            self._skip(item.face_id, Reason.CHANGED_SINCE, _tell_holder(now))
            return
        hold = self._make_hold(item, now)
        if hold is None:
            if now is not None:
                self._move(item.face_id, now, None)
            return
        obstacle = self._find_obstacle(standing, hold)
        if obstacle is not None:
            self._skip(item.face_id, *obstacle)
        elif now is None or now.hold != hold:
            self._move(item.face_id, now, hold)

    def _is_as_left(self, item: FaceItem, now: Assignment | None) -> bool:
        """Whether all that the change altered about a face is as it left it."""
        before, after = item.before, item.after
        if after is None or now is None:
            return after is None and now is None
        if now.person_id not in (after.person_id, self._resolve(after.person_id)):
            return False
        if before is not None and before.person_id == after.person_id:
            same_source = before.source is after.source or now.source is after.source
            same_choice = before.choice is after.choice or now.choice is after.choice
            return same_source and same_choice
        return now.source is after.source

    def _make_hold(self, item: FaceItem, now: Assignment | None) -> Hold | None:
        before, after = item.before, item.after
        if before is None:
            return None
        # What was said of the face as a prototype since then stays said.
        untouched = now is None or after is None or now.choice is after.choice
        choice = before.choice if untouched or now is None else now.choice
        person_id = self._resolve(before.person_id)
        if (
            now is not None
            and after is not None
            and before.person_id == after.person_id
            and before.source is after.source
        ):
            # Only the word on the prototype was the change's: who confirmed the face since stays its witness.
            return replace(now.hold, person_id=person_id, choice=choice)
        return replace(before, person_id=person_id, choice=choice)

    def _find_obstacle(self, standing: FaceStanding, hold: Hold) -> tuple[Reason, str] | None:
        person = self._left.people.get(hold.person_id)
        if person is None:
            return Reason.RESOURCE_NOT_FOUND, "its person is gone"
        if person.deleted_at is not None and not self._comes_back(hold.person_id):
            return Reason.PERSON_NOT_ACTIVE, f"person '{hold.person_id}' is deleted"
        if standing.assignment is None and standing.state != "ACTIVE":
            return Reason.FACE_NOT_ACTIVE, f"the face is {standing.state.lower().replace('_', ' ')}"
        held = standing.assignment is not None and standing.assignment.person_id == hold.person_id
        exclusion = self._left.exclusions_of.get((standing.face_id, hold.person_id))
        if exclusion is not None and not held and exclusion not in self._made.take_back:
            return Reason.FACE_EXCLUDED, f"a human said since that it is not person '{hold.person_id}'"
        return None

    def _plan_excluding(self) -> None:
        holders = {face_id: row.assignment.person_id for face_id, row in self._left.standings.items() if row.assignment}
        for move in self._made.moves:
            if move.hold is None:
                holders.pop(move.face_id, None)
            else:
                holders[move.face_id] = move.hold.person_id
        taken = {row.exclusion_id for row in self._made.take_back}
        used = {row.exclusion_id for row in self._left.exclusions_of.values()} - taken
        for item in self._left.exclusions:
            found = item.exclusion
            pair = (found.face_id, self._resolve(found.person_id))
            stands = pair in self._left.exclusions_of and self._left.exclusions_of[pair].exclusion_id not in taken
            if item.made or stands or found.exclusion_id in used or pair[1] not in self._left.people:
                continue
            if found.face_id not in self._left.standings:
                self._skip(found.face_id, Reason.RESOURCE_NOT_FOUND, "the face is gone")
            elif holders.get(found.face_id) == pair[1]:
                self._skip(found.face_id, Reason.CHANGED_SINCE, "the face was given to that person since")
            else:
                made = replace(found, person_id=pair[1])
                self._made.exclude.append(made)
                self._made.touched.add(made.person_id)

    def _keep_if_needed(self, person_id: UUID) -> None:
        """Leave a person alone who would be put away with faces this undo does not take."""
        others = self._count_others(person_id)
        if self._made.persons[person_id][1].get("deleted") and others > 0:
            self._skip(person_id, Reason.CHANGED_SINCE, f"the person has got {others} other faces since")
            del self._made.persons[person_id]

    def _count_others(self, person_id: UUID) -> int:
        return self._left.people[person_id].face_count - self._leaving.get(person_id, 0)

    def _find_merge_obstacle(self, person_id: UUID, into: UUID) -> str | None:
        """Why a person cannot become part of another again, just as it was."""
        survivor = self._left.people.get(into)
        # A survivor who is deleted may be one again: the merge was there when they were put away. Faces cannot go to them.
        if survivor is None or self._resolve(into) == person_id:
            return f"person '{into}' cannot be the survivor any more"
        others = self._count_others(person_id)
        if others > 0:
            return f"the person has got {others} other faces since"
        taken = {row.exclusion_id for row in self._made.take_back}
        strange = sum(row.exclusion_id not in taken for row in self._left.exclusions_from.get(person_id, ()))
        return f"the person has got {strange} other exclusions since" if strange else None

    def _plan_doubles(self) -> None:
        before = self._left.before.get("doubles", {})
        for asset_id, allowed in self._left.after.get("doubles", {}).items():
            if asset_id not in self._left.doubles:
                self._skip(asset_id, Reason.RESOURCE_NOT_FOUND, "the photo is gone")
            elif self._left.doubles[asset_id] is allowed:
                self._made.doubles[asset_id] = before[asset_id]
            else:
                self._skip(asset_id, Reason.CHANGED_SINCE, "changed since")

    def _plan_matcher(self) -> None:
        if "matcher" not in self._left.after:
            return
        if self._left.matcher == self._left.after["matcher"]:
            self._made.matcher = (self._left.matcher, self._left.before["matcher"])
        else:
            self._skip(str(self._left.after["matcher"]), Reason.CHANGED_SINCE, "another matcher was activated since")

    def _resolve(self, person_id: UUID) -> UUID:
        """Whom a person is part of now, as far as this undo leaves it so."""
        seen = {person_id}
        while (person := self._left.people.get(person_id)) is not None and person.merged_into is not None:
            if "merged_into" in self._made.persons.get(person_id, ({}, {}))[1]:
                break
            person_id = person.merged_into
            if person_id in seen or person_id not in self._left.people:
                raise Contention("persons of this change are being merged by another call: try again")
            seen.add(person_id)
        return person_id

    def _comes_back(self, person_id: UUID) -> bool:
        return self._made.persons.get(person_id, ({}, {}))[1].get("deleted") is False

    def _move(self, face_id: UUID, now: Assignment | None, hold: Hold | None) -> None:
        self._made.moves.append(Move(face_id, hold))
        self._made.touched |= {held.person_id for held in (now, hold) if held is not None}
        if now is not None and (hold is None or hold.person_id != now.person_id):
            self._leaving[now.person_id] = self._leaving.get(now.person_id, 0) + 1

    def _skip(self, item_id: UUID | str, reason: Reason, message: str) -> None:
        self._made.skipped.append(ItemFailure(str(item_id), reason.value, message))


def _tell_holder(now: Assignment | None) -> str:
    return "the face is nobody's now" if now is None else f"the face was given to person '{now.person_id}' since"
