"""SQL that reads the ledger: pages of changes, of what one did to faces, and what comes after a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, func, select, union
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE
from sqlalchemy.engine import Row

from services.persons.domain.model import ChangeKind, Hold
from services.persons.repository.change_items import to_hold
from shared.db.engine import Transaction
from shared.db.pagination import Page, PageRequest, SortKey, keyset, make_page
from shared.db.tables_persons import change_exclusions, change_faces, changes
from shared.errors import NotFound


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One row of ``changes``. ``position`` counts from 1; 0 until a reader has given it one."""

    change_id: UUID
    library_id: str
    kind: ChangeKind
    actor: str
    reason: str
    rpc: str
    request_id: str
    person_ids: Sequence[UUID]
    face_ids: Sequence[UUID]
    face_count: int
    before: dict[str, Any]
    after: dict[str, Any]
    undoes: UUID | None
    undone_by: UUID | None
    created_at: datetime
    position: int


@dataclass(frozen=True, slots=True)
class FaceChange:
    """What a change did to one face; no hold before and none after: it changed exclusions only."""

    face_id: UUID
    before: Hold | None
    after: Hold | None
    excluded_from: Sequence[UUID]
    allowed_again: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Which changes to list; what is None or empty does not matter."""

    person_id: UUID | None = None
    face_id: UUID | None = None
    kinds: tuple[ChangeKind, ...] = ()
    actor: str = ""


async def get_change(tx: Transaction, library_id: str, change_id: UUID, *, lock: bool = False) -> LedgerEntry:
    """One change; raises :class:`NotFound`. ``lock`` keeps others from undoing it until the transaction ends."""
    statement = select(changes).where(changes.c.library_id == library_id, changes.c.change_id == change_id)
    row = await tx.one_or_none(statement.with_for_update(key_share=True) if lock else statement)
    if row is None:
        raise NotFound("change", str(change_id))
    return _entry(row)


async def lock_chain(tx: Transaction, library_id: str, change_id: UUID) -> LedgerEntry:
    """One change, locked together with what it undoes, and what that undoes, and so on; raises :class:`NotFound`.

    In order of id, as whoever takes somebody out of the ledger locks changes: a change is older than what undoes it.
    """
    own = changes.c.library_id == library_id
    chain = select(changes.c.change_id, changes.c.undoes).where(own, changes.c.change_id == change_id)
    links = chain.cte("chain", recursive=True)
    undone = select(changes.c.change_id, changes.c.undoes).join(links, changes.c.change_id == links.c.undoes)
    links = links.union_all(undone)
    rows = await tx.rows(
        select(changes)
        .where(changes.c.change_id.in_(select(links.c.change_id)))
        .order_by(changes.c.change_id)
        .with_for_update(key_share=True, of=changes)
    )
    entries = {row.change_id: _entry(row) for row in rows}
    if change_id not in entries:
        raise NotFound("change", str(change_id))
    return entries[change_id]


async def list_changes(
    tx: Transaction, library_id: str, request: PageRequest, where: ChangeFilter
) -> Page[LedgerEntry]:
    """Changes that pass the filter, newest first."""
    statement = select(changes).where(changes.c.library_id == library_id)
    if where.person_id is not None:
        statement = statement.where(changes.c.person_ids.contains([where.person_id]))
    if where.face_id is not None:
        statement = statement.where(changes.c.change_id == func.any(_changes_of_face(where.face_id)))
    if where.kinds:
        statement = statement.where(changes.c.kind.in_(where.kinds))
    if where.actor:
        statement = statement.where(changes.c.actor == where.actor)
    rows = await tx.rows(keyset(statement, request, [SortKey(changes.c.change_id, descending=True)]))
    return make_page(rows, request, _entry, lambda row: [row.change_id])


async def list_changes_after(tx: Transaction, library_id: str, position: int, limit: int) -> list[LedgerEntry]:
    """The changes after a position, in order of position."""
    rows = await tx.rows(
        select(changes)
        .where(changes.c.library_id == library_id, changes.c.position > position)
        .order_by(changes.c.position)
        .limit(limit)
    )
    return [_entry(row) for row in rows]


async def list_change_faces(tx: Transaction, change_id: UUID, request: PageRequest) -> Page[FaceChange]:
    """The faces a change moved or changed exclusions of, by id. One statement, which reads no more than the page."""
    moved = select(change_faces.c.face_id).where(change_faces.c.change_id == change_id)
    excluded = select(change_exclusions.c.face_id).where(change_exclusions.c.change_id == change_id).distinct()
    touched = union(
        _first(moved, request, change_faces.c.face_id), _first(excluded, request, change_exclusions.c.face_id)
    ).subquery("touched")
    wanted = keyset(select(touched.c.face_id), request, [SortKey(touched.c.face_id)]).subquery("wanted")
    of_face = and_(change_faces.c.change_id == change_id, change_faces.c.face_id == wanted.c.face_id)
    rows = await tx.rows(
        select(
            wanted.c.face_id,
            *(column for column in change_faces.c if column.name.startswith(("before_", "after_"))),
            _persons_of(change_id, wanted.c.face_id, made=True).label("excluded_from"),
            _persons_of(change_id, wanted.c.face_id, made=False).label("allowed_again"),
        )
        .select_from(wanted.outerjoin(change_faces, of_face))
        .order_by(wanted.c.face_id)
    )
    return make_page(rows, request, _face_change, lambda row: [row.face_id])


def _changes_of_face(face_id: UUID) -> Any:
    # As an array, so that the few changes of one face are looked up, never the ledger searched for them.
    moved = select(change_faces.c.change_id).where(change_faces.c.face_id == face_id)
    excluded = select(change_exclusions.c.change_id).where(change_exclusions.c.face_id == face_id)
    found = union(moved, excluded).subquery("found")
    return func.array(select(found.c.change_id).scalar_subquery())


def _first(statement: Select[Any], request: PageRequest, face_id: Any) -> Any:
    # Each half ends where the page can end, so that neither is read whole.
    return select(keyset(statement, request, [SortKey(face_id)]).subquery())


def _persons_of(change_id: UUID, face_id: Any, *, made: bool) -> Any:
    found = (
        select(change_exclusions.c.person_id)
        .where(
            change_exclusions.c.change_id == change_id,
            change_exclusions.c.face_id == face_id,
            change_exclusions.c.made.is_(made),
        )
        .order_by(change_exclusions.c.person_id)
    )
    return func.array(found.scalar_subquery(), type_=ARRAY(UUID_TYPE(as_uuid=True)))


def _entry(row: Row[Any]) -> LedgerEntry:
    return LedgerEntry(
        change_id=row.change_id,
        library_id=row.library_id,
        kind=ChangeKind(row.kind),
        actor=row.actor,
        reason=row.reason,
        rpc=row.rpc,
        request_id=row.request_id,
        person_ids=row.person_ids,
        face_ids=row.face_ids,
        face_count=row.face_count,
        before=row.before,
        after=row.after,
        undoes=row.undoes,
        undone_by=row.undone_by,
        created_at=row.created_at,
        position=row.position or 0,
    )


def _face_change(row: Row[Any]) -> FaceChange:
    return FaceChange(
        face_id=row.face_id,
        before=to_hold(row, "before"),
        after=to_hold(row, "after"),
        excluded_from=row.excluded_from,
        allowed_again=row.allowed_again,
    )
