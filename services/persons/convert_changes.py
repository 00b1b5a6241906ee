"""Changes of the ledger as messages, and what is asked about them as filters; nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf import struct_pb2

from kith.persons.v1 import changes_pb2
from services.persons.convert import to_choice, to_source
from services.persons.domain.model import ChangeKind, Hold
from services.persons.repository.ledger_pages import ChangeFilter, FaceChange, LedgerEntry
from shared.errors import InvalidRequest, Reason
from shared.ids import parse_uuid
from shared.jobs.convert import to_timestamp
from shared.rpc.enums import from_enum
from shared.rpc.principal import MAX_SUBJECT

MAX_KINDS: Final = 100
_CURSOR: Final = re.compile(r"1/([0-9]{1,18})/([0-9a-f]{16})")


def to_change(entry: LedgerEntry) -> changes_pb2.Change:
    """A change as a message."""
    return changes_pb2.Change(
        id=str(entry.change_id),
        library_id=entry.library_id,
        kind=changes_pb2.ChangeKind.Value(f"CHANGE_KIND_{entry.kind.value}"),
        actor=entry.actor,
        reason=entry.reason,
        rpc=entry.rpc,
        request_id=entry.request_id,
        person_ids=[str(person_id) for person_id in entry.person_ids],
        face_ids=[str(face_id) for face_id in entry.face_ids],
        before=_to_struct(entry.before),
        after=_to_struct(entry.after),
        undone_by=str(entry.undone_by or ""),
        undoes=str(entry.undoes or ""),
        create_time=to_timestamp(entry.created_at),
        cursor=to_cursor(entry.library_id, entry.position) if entry.position else "",
        face_count=entry.face_count,
    )


def to_face_change(change: FaceChange) -> changes_pb2.FaceChange:
    """What a change did to a face, as a message."""
    return changes_pb2.FaceChange(
        face_id=str(change.face_id),
        before=_to_hold(change.before),
        after=_to_hold(change.after),
        excluded_from=[str(person_id) for person_id in change.excluded_from],
        allowed_again=[str(person_id) for person_id in change.allowed_again],
    )


def from_list_changes(request: changes_pb2.ListChangesRequest) -> ChangeFilter:
    """Which changes are asked for; raises :class:`InvalidRequest`."""
    if len(request.actor) > MAX_SUBJECT:
        raise InvalidRequest(f"actor must have at most {MAX_SUBJECT} characters", field="actor")
    return ChangeFilter(
        person_id=parse_uuid(request.person_id, "person_id") if request.person_id else None,
        face_id=parse_uuid(request.face_id, "face_id") if request.face_id else None,
        kinds=_from_kinds(request.kinds),
        actor=request.actor,
    )


def to_cursor(library_id: str, position: int) -> str:
    """A position in a library's ledger as the caller gets it: opaque, and sealed, so that no other text passes for one."""
    text = f"1/{position}/{_seal(library_id, position)}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def from_cursor(library_id: str, cursor: str, field: str) -> int:
    """The position a cursor stands for.

    Raises :class:`InvalidRequest` (PAGE_TOKEN_INVALID) naming ``field`` for one that is not of this library's ledger.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise _bad_cursor(field) from error
    found = _CURSOR.fullmatch(text)
    if found is None or found[2] != _seal(library_id, int(found[1])):
        raise _bad_cursor(field)
    return int(found[1])


def _seal(library_id: str, position: int) -> str:
    return hashlib.sha256(f"changes/{library_id}/{position}".encode()).hexdigest()[:16]


def _bad_cursor(field: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field} is not a cursor of this library's ledger: use one from a change of it",
        field=field,
        reason=Reason.PAGE_TOKEN_INVALID,
    )


def _from_kinds(kinds: Sequence[changes_pb2.ChangeKind.ValueType]) -> tuple[ChangeKind, ...]:
    if len(kinds) > MAX_KINDS:
        raise InvalidRequest(f"kinds must have at most {MAX_KINDS} entries", field="kinds")
    read = changes_pb2.ChangeKind.Name
    found = {from_enum(read, kind, ChangeKind, "CHANGE_KIND_", f"kinds[{index}]") for index, kind in enumerate(kinds)}
    return tuple(sorted(found))


def _to_hold(hold: Hold | None) -> changes_pb2.FaceHold | None:
    if hold is None:
        return None
    return changes_pb2.FaceHold(
        person_id=str(hold.person_id),
        source=to_source(hold.source),
        confidence=hold.confidence,
        prototype_choice=to_choice(hold.choice),
    )


def _to_struct(fields: dict[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(fields)
    return struct
