"""Messages to commands, and results to messages; nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf import field_mask_pb2

from kith.common.v1 import types_pb2
from kith.persons.v1 import assignments_pb2, persons_pb2, prototypes_pb2
from services.persons.domain.model import (
    Assignment,
    EraCoverage,
    PeopleEntry,
    PeopleKind,
    Person,
    PersonOrder,
    PersonPhoto,
    PersonStatus,
    Prototype,
    Source,
)
from services.persons.repository.exclusions import Exclusion
from services.persons.repository.receipts import Receipt
from shared.errors import InvalidRequest
from shared.faces.eras import DatePrecision, Era, PartialDate, make_partial_date
from shared.faces.prototypes import Choice
from shared.ids import parse_uuid
from shared.jobs.convert import to_timestamp
from shared.rpc.enums import from_enum

MAX_REASON = 500
# Looked up once: a page has hundreds of them.
_STATUSES = {status: persons_pb2.PersonStatus.Value(f"PERSON_STATUS_{status.value}") for status in PersonStatus}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EDITABLE = ("name", "status", "birth_date", "cover_face_id", "notes", "external_ids")


def to_person(person: Person) -> persons_pb2.Person:
    """A person as a message."""
    return persons_pb2.Person(
        id=str(person.person_id),
        library_id=person.library_id,
        name=person.name,
        status=_STATUSES[person.status],
        birth_date=_fields_of_date(person.birth_date),
        merged_into=str(person.merged_into or ""),
        cover_face_id=str(person.cover_face_id or ""),
        notes=person.notes,
        external_ids=person.external_ids,
        face_count=person.face_count,
        first_seen=_fields_of_moment(person.first_seen),
        last_seen=_fields_of_moment(person.last_seen),
        create_time=_fields_of_moment(person.created_at),
        update_time=_fields_of_moment(person.updated_at),
        delete_time=_fields_of_moment(person.deleted_at),
        etag=person.etag,
    )


def from_status(status: persons_pb2.PersonStatus.ValueType, field: str = "status") -> PersonStatus:
    """A status of the contract in the domain's words; unset is ACTIVE."""
    if status == persons_pb2.PERSON_STATUS_UNSPECIFIED:
        return PersonStatus.ACTIVE
    return from_enum(persons_pb2.PersonStatus.Name, status, PersonStatus, "PERSON_STATUS_", field)


def from_order(order: persons_pb2.PersonOrder.ValueType, default: PersonOrder) -> PersonOrder:
    """An order of the contract in the domain's words."""
    if order == persons_pb2.PERSON_ORDER_UNSPECIFIED:
        return default
    return from_enum(persons_pb2.PersonOrder.Name, order, PersonOrder, "PERSON_ORDER_", "order")


def from_date(message: types_pb2.Date, field: str) -> PartialDate:
    """A partial date; raises :class:`InvalidRequest` naming ``field`` if there is no such day."""
    if message.day and not message.month:
        raise InvalidRequest(f"{field}.day needs a month", field=f"{field}.day")
    try:
        made = make_partial_date(message.year or None, message.month, message.day)
    except ValueError as error:
        raise InvalidRequest(f"{field} is no date: {error}", field=field) from error
    if made is None:
        raise InvalidRequest(f"{field}.year is required", field=f"{field}.year")
    return made


def read_person_values(person: persons_pb2.Person, mask: field_mask_pb2.FieldMask | None) -> dict[str, Any]:
    """The fields a mask names (AIP-134: an empty mask means every field that is set), in the domain's types.

    Raises :class:`InvalidRequest` for a path that cannot be changed.
    """
    paths = (
        list(mask.paths) if mask is not None and mask.paths else [name for name in EDITABLE if _is_set(person, name)]
    )
    values: dict[str, Any] = {}
    for path in paths:
        if path not in EDITABLE:
            raise InvalidRequest(f"update_mask: '{path}' cannot be changed", field="update_mask")
        if path == "status":
            values[path] = from_status(person.status)
        elif path == "birth_date":
            known = person.HasField("birth_date")
            values[path] = from_date(person.birth_date, "person.birth_date") if known else None
        elif path == "cover_face_id":
            cover = person.cover_face_id
            values[path] = parse_uuid(cover, "person.cover_face_id") if cover else None
        elif path == "external_ids":
            values[path] = dict(person.external_ids)
        else:
            values[path] = getattr(person, path)
    return values


def from_source(source: assignments_pb2.AssignmentSource.ValueType) -> Source:
    """Who assigns; unset is a human."""
    if source == assignments_pb2.ASSIGNMENT_SOURCE_UNSPECIFIED:
        return Source.HUMAN
    return from_enum(assignments_pb2.AssignmentSource.Name, source, Source, "ASSIGNMENT_SOURCE_", "source")


def to_source(source: Source) -> assignments_pb2.AssignmentSource.ValueType:
    """Who assigned, as the contract has it."""
    return assignments_pb2.AssignmentSource.Value(f"ASSIGNMENT_SOURCE_{source.value}")


def to_choice(choice: Choice | None) -> prototypes_pb2.PrototypeChoice.ValueType:
    """A human's word on a face as a prototype, as the contract has it; None is unspecified."""
    return prototypes_pb2.PrototypeChoice.Value(f"PROTOTYPE_CHOICE_{choice.value if choice else 'UNSPECIFIED'}")


def to_assignment(assignment: Assignment) -> assignments_pb2.Assignment:
    """An assignment as a message."""
    return assignments_pb2.Assignment(
        face_id=str(assignment.face_id),
        person_id=str(assignment.person_id),
        source=to_source(assignment.source),
        confidence=assignment.confidence,
        assign_time=to_timestamp(assignment.assigned_at),
        etag=assignment.etag,
    )


def check_reason(reason: str) -> str:
    """Why something is done, for the ledger; raises :class:`InvalidRequest` if it is too long."""
    if len(reason) > MAX_REASON:
        raise InvalidRequest(f"reason must have at most {MAX_REASON} characters", field="reason")
    return reason


def to_prototype(prototype: Prototype) -> prototypes_pb2.Prototype:
    """A prototype as a message."""
    return prototypes_pb2.Prototype(
        face_id=str(prototype.face_id),
        person_id=str(prototype.person_id),
        role=prototypes_pb2.PrototypeRole.Value(f"PROTOTYPE_ROLE_{prototype.role.value}"),
        era=to_era(prototype.era),
        pinned=prototype.pinned,
        quality=prototype.quality,
        create_time=to_timestamp(prototype.created_at),
        choice=to_choice(prototype.choice),
    )


def to_era(era: Era | None) -> types_pb2.Era.ValueType:
    """An era as the contract has it; None is unspecified."""
    return types_pb2.Era.Value(f"ERA_{era.value}") if era else types_pb2.ERA_UNSPECIFIED


def to_era_coverage(coverage: EraCoverage) -> prototypes_pb2.EraCoverage:
    """What a person has in one era as a message."""
    return prototypes_pb2.EraCoverage(
        era=to_era(coverage.era),
        face_count=coverage.faces,
        prototype_count=coverage.prototypes,
        pinned=coverage.pinned,
    )


def to_people_entry(entry: PeopleEntry) -> persons_pb2.PeopleEntry:
    """A row of the people page as a message."""
    message = persons_pb2.PeopleEntry(
        display_name=entry.display_name,
        face_count=entry.face_count,
        cover_face_id=str(entry.cover_face_id or ""),
        first_seen=_fields_of_moment(entry.first_seen),
        last_seen=_fields_of_moment(entry.last_seen),
    )
    if entry.kind is PeopleKind.PERSON:
        message.person_id = entry.entry_id
    elif entry.kind is PeopleKind.CLUSTER:
        message.cluster_id = entry.entry_id
    elif entry.kind is PeopleKind.NOISE:
        message.noise = True
    else:
        message.ignored = True
    return message


def to_photo(photo: PersonPhoto) -> persons_pb2.PersonPhoto:
    """A photo of a person as a message."""
    return persons_pb2.PersonPhoto(
        asset_id=photo.asset_id,
        captured_at=_to_captured(photo),
        faces=[
            persons_pb2.PersonPhotoFace(
                face_id=str(face.face_id),
                box=types_pb2.BoundingBox(x=face.box.x, y=face.box.y, width=face.box.width, height=face.box.height),
            )
            for face in photo.faces
        ],
    )


def to_receipt(receipt: Receipt, library_id: str) -> persons_pb2.Receipt:
    """A receipt as a message."""
    return persons_pb2.Receipt(
        person_id=str(receipt.person_id),
        library_id=library_id,
        job_id=str(receipt.job_id),
        faces_deleted=receipt.delete_faces,
        create_time=to_timestamp(receipt.created_at),
        complete_time=to_timestamp(receipt.completed_at),
        stores=[
            persons_pb2.StoreReceipt(
                store=each.store, deleted_count=each.deleted, verify_time=to_timestamp(each.verified_at)
            )
            for each in receipt.stores
        ],
    )


def to_exclusion(exclusion: Exclusion, library_id: str) -> assignments_pb2.Exclusion:
    """An exclusion as a message."""
    return assignments_pb2.Exclusion(
        id=str(exclusion.exclusion_id),
        library_id=library_id,
        face_id=str(exclusion.face_id),
        person_id=str(exclusion.person_id),
        created_by=exclusion.created_by,
        create_time=to_timestamp(exclusion.created_at),
    )


# A page has hundreds of moments and dates. Given as its fields a message is made in its place; one made before is copied
# there by way of its bytes, which takes a third longer in all. The stubs know only of the latter, so these answer with Any.


def _fields_of_moment(moment: datetime | None) -> Any:
    """A moment as the fields of a Timestamp; None stays unset."""
    if moment is None:
        return None
    since = moment - _EPOCH
    return {"seconds": since.days * 86_400 + since.seconds, "nanos": since.microseconds * 1000}


def _fields_of_date(value: PartialDate | None) -> Any:
    """A partial date as the fields of a Date; None stays unset."""
    if value is None:
        return None
    return {
        "year": value.value.year,
        "month": value.value.month if value.precision is not DatePrecision.YEAR else 0,
        "day": value.value.day if value.precision is DatePrecision.DAY else 0,
    }


def _to_captured(photo: PersonPhoto) -> types_pb2.CaptureTime | None:
    if photo.captured_at is None:
        return None
    return types_pb2.CaptureTime(
        time=to_timestamp(photo.captured_at),
        precision=types_pb2.TimePrecision.Value(f"TIME_PRECISION_{photo.precision or 'SECOND'}"),
        utc_offset_minutes=photo.utc_offset_minutes,
    )


def _is_set(person: persons_pb2.Person, name: str) -> bool:
    return person.HasField("birth_date") if name == "birth_date" else bool(getattr(person, name))
