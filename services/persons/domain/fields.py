"""A person's fields as the ledger keeps them: what a human may decide about a person, in JSON, and back into columns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any
from uuid import UUID

from services.persons.domain.model import Person, PersonStatus
from services.persons.domain.naming import make_name_key, make_trigrams
from shared.clock import Clock
from shared.faces.eras import DatePrecision, PartialDate

Fields = dict[str, Any]


def describe_person(person: Person) -> Fields:
    """Every field of a person that the ledger keeps."""
    return {
        "name": person.name,
        "status": person.status.value,
        "birth_date": describe_birth(person.birth_date),
        "cover_face_id": str(person.chosen_cover) if person.chosen_cover else None,
        "notes": person.notes,
        "external_ids": person.external_ids,
        "merged_into": str(person.merged_into) if person.merged_into else None,
        "deleted": person.deleted_at is not None,
    }


def describe_birth(birth: PartialDate | None) -> Fields | None:
    """A birth date as the ledger keeps it."""
    return {"date": birth.value.isoformat(), "precision": birth.precision.value} if birth else None


def compare_fields(old: Fields, new: Fields) -> tuple[Fields, Fields]:
    """What of ``new`` differs from every field there was, before and after."""
    names = [name for name, value in new.items() if value != old[name]]
    return {name: old[name] for name in names}, {name: new[name] for name in names}


def tell_persons(fields: Mapping[UUID, Fields]) -> Fields:
    """Fields of persons as a change has them, before or after it."""
    return {"persons": {str(person_id): each for person_id, each in fields.items()}}


def describe_creation(person: Person) -> tuple[Fields, Fields]:
    """What the change that makes a person says of them, before and after: without it they are deleted."""
    return (
        tell_persons({person.person_id: {"deleted": True}}),
        tell_persons({person.person_id: describe_person(person)}),
    )


def make_columns(fields: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Columns of ``persons`` that hold these fields of the ledger."""
    columns: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "name":
            columns |= name_columns(value)
        elif name == "status":
            columns["status"] = PersonStatus(value).value
        elif name == "birth_date":
            columns |= birth_columns(
                PartialDate(date.fromisoformat(value["date"]), DatePrecision(value["precision"])) if value else None
            )
        elif name == "cover_face_id":
            columns["chosen_cover"] = UUID(value) if value else None
        elif name == "merged_into":
            columns["merged_into"] = UUID(value) if value else None
        elif name == "deleted":
            columns["deleted_at"] = clock.now() if value else None
        else:
            columns[name] = value
    return columns


def name_columns(name: str) -> dict[str, Any]:
    """A name as its columns: as it is shown, as it is compared, and what names alike are found by."""
    name_key = make_name_key(name)
    return {"name": name, "name_key": name_key, "name_trigrams": make_trigrams(name_key)}


def birth_columns(birth: PartialDate | None) -> dict[str, int | None]:
    """A birth date as its three columns; parts that are not known are NULL."""
    if birth is None:
        return {"birth_year": None, "birth_month": None, "birth_day": None}
    known = birth.precision.value
    return {
        "birth_year": birth.value.year,
        "birth_month": birth.value.month if known in {"MONTH", "DAY"} else None,
        "birth_day": birth.value.day if known == "DAY" else None,
    }
