"""What a machine may not do, though a human may: find a person in a photo from before their birth, or twice in one photo."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from services.persons.domain.model import Person
from services.persons.repository.doubles import FacePhoto
from shared.errors import PreconditionFailed, Reason
from shared.faces.eras import is_before_birth


class MachineRules:
    """Judges faces a machine gives to one person, one after the other: of two in a photo the first counts.

    ``photos`` were read after everything was locked that decides: the faces, and the person, without whose lock nobody gives
    them a face.
    """

    def __init__(self, person: Person, photos: Mapping[UUID, FacePhoto]) -> None:
        self._person = person
        self._photos = photos
        self._admitted: dict[str, UUID] = {}

    def admit(self, face_id: UUID) -> None:
        """Let the person have a face.

        Raises :class:`PreconditionFailed` with BEFORE_BIRTH or SAME_PHOTO_DOUBLE; the face does not count then.
        """
        photo = self._photos[face_id]
        pair = {"face_id": str(face_id), "person_id": str(self._person.person_id)}
        if is_before_birth(self._person.birth_date, photo.captured):
            raise PreconditionFailed(
                f"face '{face_id}' was photographed before this person was born",
                reason=Reason.BEFORE_BIRTH,
                metadata=pair,
            )
        other = self._admitted.get(photo.asset_id, photo.other_face_id)
        if other is not None and not photo.may_double:
            raise PreconditionFailed(
                f"this person has another face in the photo of face '{face_id}' already",
                reason=Reason.SAME_PHOTO_DOUBLE,
                metadata={**pair, "other_face_id": str(other)},
            )
        self._admitted[photo.asset_id] = face_id


def refuse_excluded(face_id: UUID, person_id: UUID) -> PreconditionFailed:
    """What is raised for a face that is excluded from the person it was to go to."""
    return PreconditionFailed(
        f"a human said that face '{face_id}' is not this person",
        reason=Reason.FACE_EXCLUDED,
        metadata={"face_id": str(face_id), "person_id": str(person_id)},
    )
