"""``report.html``: one page that needs nothing beside it, to look at what came out."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from demo.client import Kith
from demo.job import Outcome
from demo.truth import Truth
from kith.persons.v1 import persons_pb2
from kith.suggestions.v1 import suggestions_pb2

CROP_PX = 96
# Enough to judge by; the page stays a few MB however large the library.
SHOWN_PER_GROUP = 40
SHOWN_QUESTIONS = 400
TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True, slots=True)
class Picture:
    """A face on the page: its crop, what the truth says of it, and whether that is right here."""

    source: str
    truth: str
    right: bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """A person or a group with its faces; ``more`` faces are not shown."""

    title: str
    note: str
    pictures: Sequence[Picture]
    more: int


@dataclass(frozen=True, slots=True)
class Question:
    """One suggestion: the face asked about, the exemplars it was like, and how it was answered."""

    face: Picture
    exemplars: Sequence[tuple[Picture, float]]
    person: str
    runner_up: str
    answer: str
    suggestion: suggestions_pb2.Suggestion


async def render_report(kith: Kith, truth: Truth, outcome: Outcome, summary: Mapping[str, Any], title: str) -> str:
    """Fetch the crops and make the page."""
    builder = _Builder(truth, outcome)
    builder.crops = await kith.fetch_crops(builder.wanted(), CROP_PX)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        summary=summary,
        people=builder.people(),
        groups=builder.groups(),
        questions=builder.questions(),
        loose=builder.loose(),
        missed=builder.missed(),
        failures=outcome.failures,
        collections=outcome.consistency.collections,
        consistent=outcome.consistency.consistent,
        has_truth=bool(truth.names()),
    )


class _Builder:
    """Turns an outcome into rows of pictures."""

    def __init__(self, truth: Truth, outcome: Outcome) -> None:
        self._truth = truth
        self._outcome = outcome
        self._names = truth.names()
        self._quality = {face.face_id: face.quality for face in outcome.faces}
        self._faces_of: dict[str, list[str]] = defaultdict(list)
        for face in sorted(outcome.faces, key=lambda face: -face.quality):
            self._faces_of[face.person_id or (face.cluster_id and "unnamed") or "loose"].append(face.face_id)
        self.crops: dict[str, bytes] = {}

    def wanted(self) -> list[str]:
        """Ids of every face the page shows."""
        shown: dict[str, None] = {}
        for faces in (*self._faces_of.values(), *(group.face_ids for group in self._outcome.groups)):
            shown |= dict.fromkeys(faces[:SHOWN_PER_GROUP])
        for suggestion in self._outcome.suggestions[:SHOWN_QUESTIONS]:
            shown[suggestion.face_id] = None
            shown |= dict.fromkeys(exemplar.face_id for exemplar in suggestion.evidence.exemplars[:3])
        return list(shown)

    def people(self) -> list[Row]:
        """Named persons, with whether each face is really theirs."""
        rows = []
        for entry in self._outcome.people:
            if entry.WhichOneof("identity") != "person_id":
                continue
            faces = self._faces_of.get(entry.person_id, [])
            note = f"{entry.face_count} faces{_span(entry)}"
            rows.append(self._row(entry.display_name, note, faces, entry.display_name))
        return rows

    def groups(self) -> list[Row]:
        """The clusters as they were found, before anybody named them."""
        return [
            self._row(
                f"Unnamed {group.cluster.number}",
                f"{len(group.face_ids)} faces, cohesion {group.cluster.cohesion:.2f}, "
                + (f"named {group.name}" if group.name else "not named: nobody the owner knows"),
                group.face_ids,
                group.name,
            )
            for group in self._outcome.groups
        ]

    def loose(self) -> Row:
        """Faces without a person and in no group."""
        faces = self._faces_of.get("loose", [])
        return self._row("In no group", f"{len(faces)} faces", faces, None)

    def questions(self) -> list[Question]:
        """Each suggestion with its evidence."""
        answers = {
            suggestions_pb2.SUGGESTION_STATE_ACCEPTED: "yes",
            suggestions_pb2.SUGGESTION_STATE_REJECTED: "no",
            suggestions_pb2.SUGGESTION_STATE_PENDING: "open",
        }
        names = {person_id: person.name for person_id, person in self._outcome.persons.items()}
        return [
            Question(
                face=self._picture(suggestion.face_id, None),
                exemplars=[
                    (self._picture(exemplar.face_id, None), exemplar.cosine)
                    for exemplar in suggestion.evidence.exemplars[:3]
                ],
                person=names.get(suggestion.person_id, "?"),
                runner_up=names.get(suggestion.evidence.runner_up_person_id, ""),
                answer=answers.get(suggestion.state, "expired"),
                suggestion=suggestion,
            )
            for suggestion in self._outcome.suggestions[:SHOWN_QUESTIONS]
        ]

    def missed(self) -> list[str]:
        """Named people's faces that were not found, or found and never assigned to them."""
        if self._truth.faces is None:
            return []
        names = {person_id: person.name for person_id, person in self._outcome.persons.items()}
        found: dict[str, int] = defaultdict(int)
        assigned: dict[str, int] = defaultdict(int)
        for face in self._outcome.faces:
            name = self._names.get(self._outcome.identities.get(face.face_id, ""))
            if name is not None:
                found[name] += 1
                assigned[name] += names.get(face.person_id) == name
        drawn: dict[str, int] = defaultdict(int)
        for true in self._truth.faces:
            if true.name is not None:
                drawn[true.name] += 1
        return [
            f"{name}: {drawn[name]} drawn, {found[name]} found, {assigned[name]} assigned"
            for name in sorted(drawn)
            if assigned[name] < drawn[name]
        ]

    def _row(self, title: str, note: str, faces: Sequence[str], name: str | None) -> Row:
        shown = [self._picture(face_id, name) for face_id in faces[:SHOWN_PER_GROUP]]
        return Row(title, note, shown, max(0, len(faces) - SHOWN_PER_GROUP))

    def _picture(self, face_id: str, name: str | None) -> Picture:
        identity = self._outcome.identities.get(face_id)
        truth = identity or ("unknown" if self._names else "")
        right = None if name is None or identity is None else self._names.get(identity) == name
        content = base64.b64encode(self.crops[face_id]).decode()
        quality = f", quality {self._quality[face_id]:.2f}" if face_id in self._quality else ""
        return Picture(f"data:image/jpeg;base64,{content}", truth + quality, right)


def _span(entry: persons_pb2.PeopleEntry) -> str:
    if not entry.HasField("first_seen"):
        return ""
    first, last = entry.first_seen.ToDatetime().year, entry.last_seen.ToDatetime().year
    return f", {first}" if first == last else f", {first} to {last}"
