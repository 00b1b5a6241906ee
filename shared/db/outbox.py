"""The outbox: which points of Qdrant have to be brought up to the truth.

Whoever changes what Qdrant shows calls :func:`queue_points` in the same transaction. Rows carry only keys: the relay reads the
truth itself, so many changes of one face cost one write. See ADR 0003 for why a row is claimed rather than locked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    bindparam,
    column,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert

from shared.clock import Clock
from shared.db.engine import Transaction
from shared.db.named_locks import lock_until_end
from shared.db.notify import Channel, notify
from shared.db.query import Query
from shared.db.tables_detection import face_embeddings
from shared.db.tables_shared import vector_outbox, vector_versions

_LEAP = 100_000
_KEY = (vector_outbox.c.kind, vector_outbox.c.point_id, vector_outbox.c.model_version)


class PointKind(StrEnum):
    """Which collection a point lives in."""

    FACE = "FACE"
    CENTROID = "CENTROID"


@dataclass(frozen=True, slots=True)
class Claim:
    """A point this relay is to bring up to date, and the version to write it with."""

    kind: PointKind
    point_id: UUID
    model_version: str
    library_id: str
    version: int


async def queue_points(
    tx: Transaction, clock: Clock, kind: PointKind, library_id: str, points: Collection[tuple[UUID, str]]
) -> None:
    """Queue points, given as (point id, model version), for the relay, and wake it on commit."""
    if not points:
        return
    now = clock.now()
    rows = [
        {"kind": kind.value, "point_id": point_id, "model_version": version, "library_id": library_id, "queued_at": now}
        for point_id, version in sorted(set(points), key=lambda point: (point[0].int, point[1]))
    ]
    await tx.execute(_queue_statement(), rows)
    await notify(tx, Channel.OUTBOX)


async def queue_faces(
    tx: Transaction,
    clock: Clock,
    library_id: str,
    face_ids: Collection[UUID],
    gone: Collection[tuple[UUID, str]] = (),
) -> None:
    """Queue every stored vector of these faces, in one statement whatever their number.

    ``gone`` are vectors deleted by this transaction, as (face id, model version): queued along, as a row of the outbox is
    locked in the order of keys only within a statement, and a relay settles both kinds at once.
    """
    if not face_ids and not gone:
        return
    await tx.rows(
        _QUEUE_FACES,
        {
            "library_id": library_id,
            "face_ids": list(face_ids),
            "gone_ids": [face_id for face_id, _ in gone],
            "gone_versions": [version for _, version in gone],
            "queued_at": clock.now(),
        },
    )
    await notify(tx, Channel.OUTBOX)


async def claim_points(tx: Transaction, clock: Clock, limit: int, lease: timedelta) -> list[Claim]:
    """Take up to ``limit`` waiting points, oldest first, for ``lease``; points another relay holds are passed over.

    All claims of one call share one version, drawn only after their rows are locked: so it is larger than any version
    their points were ever written with.
    """
    now = clock.now()
    free = await tx.rows(
        select(
            vector_outbox.c.kind, vector_outbox.c.point_id, vector_outbox.c.model_version, vector_outbox.c.library_id
        )
        .where(or_(vector_outbox.c.claimed_until.is_(None), vector_outbox.c.claimed_until < now))
        .order_by(vector_outbox.c.queued_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if not free:
        return []
    version = await tx.scalar(select(vector_versions.next_value()))
    claims = [Claim(PointKind(row.kind), row.point_id, row.model_version, row.library_id, version) for row in free]
    await tx.execute(
        update(vector_outbox)
        .where(*_are([_key(claim) for claim in claims]))
        .values(claimed_until=now + lease, claim_version=version, dirty=False)
    )
    return claims


async def settle_claims(tx: Transaction, clock: Clock, claims: Sequence[Claim]) -> None:
    """Remove what was written; what changed again meanwhile goes back into the queue.

    A claim that another relay took over in between (this one was too slow) is queued once more, since a late write of ours
    may have undone a delete of theirs.
    """
    if not claims:
        return
    held = await _lock_claims(tx, claims)
    if held:
        ours = _are(sorted(held))
        await tx.execute(delete(vector_outbox).where(*ours, vector_outbox.c.dirty.is_(False)))
        await tx.execute(update(vector_outbox).where(*ours).values(claimed_until=None, claim_version=None))
    await _queue_again(tx, clock, [claim for claim in claims if _key(claim) not in held])


async def release_claims(tx: Transaction, clock: Clock, claims: Sequence[Claim], until: datetime | None = None) -> None:
    """Give points back, because Qdrant did not say that it took them; nobody tries them again before ``until``.

    The pause lets the points behind them have their turn, so that one collection that is lost does not hold up the rest. A
    claim that another relay took over is queued once more, as in :func:`settle_claims`: Qdrant may have taken our write late.
    """
    held = await _lock_claims(tx, claims) if claims else set()
    if held:
        await tx.execute(
            update(vector_outbox).where(*_are(sorted(held))).values(claimed_until=until, claim_version=None)
        )
    await _queue_again(tx, clock, [claim for claim in claims if _key(claim) not in held])


async def count_waiting(tx: Transaction, library_id: str | None = None) -> tuple[int, datetime | None]:
    """How many points wait, and since when the oldest."""
    statement = select(func.count().label("waiting"), func.min(vector_outbox.c.queued_at).label("oldest"))
    if library_id is not None:
        statement = statement.where(vector_outbox.c.library_id == library_id)
    row = (await tx.rows(statement))[0]
    return row.waiting, row.oldest


async def count_between(
    tx: Transaction, kind: PointKind, library_id: str, model_version: str, first: UUID, last: UUID, until: datetime
) -> int:
    """How many of a library's points from ``first`` to ``last`` wait or are being written, and did ``until`` then already.

    All three included. What others queue afterwards is not counted, however much it is.
    """
    found: int = await tx.scalar(
        select(func.count())
        .select_from(vector_outbox)
        .where(
            vector_outbox.c.kind == kind.value,
            vector_outbox.c.point_id.between(first, last),
            vector_outbox.c.queued_at <= until,
            vector_outbox.c.model_version == model_version,
            vector_outbox.c.library_id == library_id,
        )
    )
    return found


async def raise_versions(tx: Transaction, above: int) -> None:
    """See to it that every version drawn from now on is larger than ``above``.

    For a PostgreSQL that was set back to a backup, whose sequence stands where it stood then: points written after that
    would pass for newer than anything the relay writes. Not undone if the transaction is. One caller at a time, to the end
    of its transaction: between the look and the leap of one, another might leap further, and be set back.
    """
    await lock_until_end(tx, "vector_versions")
    reached = await tx.scalar(select(literal_column("last_value")).select_from(text("vector_versions")))
    if reached <= above:
        # The distance is for what others draw between the look and the leap: it must never go back.
        await tx.execute(select(func.setval(vector_versions.name, above + _LEAP)))


async def _queue_again(tx: Transaction, clock: Clock, claims: Sequence[Claim]) -> None:
    rows = [
        {
            "kind": claim.kind.value,
            "point_id": claim.point_id,
            "model_version": claim.model_version,
            "library_id": claim.library_id,
            "queued_at": clock.now(),
        }
        for claim in sorted(claims, key=lambda claim: claim.point_id.int)
    ]
    if rows:
        await tx.execute(_queue_statement(), rows)


async def _lock_claims(tx: Transaction, claims: Sequence[Claim]) -> set[tuple[str, UUID, str]]:
    # By key, as the queue may be long and has no index of claims; in the order in which writers lock rows, so that the two
    # never wait for each other.
    rows = await tx.rows(
        select(*_KEY)
        .where(
            *_are([_key(claim) for claim in claims]),
            vector_outbox.c.claim_version == claims[0].version,
        )
        .order_by(*_KEY)
        .with_for_update(of=vector_outbox)
    )
    return {(row.kind, row.point_id, row.model_version) for row in rows}


def _are(keys: Sequence[tuple[str, UUID, str]]) -> list[ColumnElement[bool]]:
    """That a row is one of ``keys``. A join with their columns: a list of a thousand keys would take longer to plan than
    to find.
    """
    columns = zip(*keys, strict=True) if keys else ((), (), ())
    arrays = [literal(list(values), ARRAY(part.type)) for values, part in zip(columns, _KEY, strict=True)]
    named = (
        func.unnest(*arrays)
        .table_valued(*(column(part.name, part.type) for part in _KEY), name="named")
        .render_derived()
    )
    return [part == named.c[part.name] for part in _KEY]


def _key(claim: Claim) -> tuple[str, UUID, str]:
    return (claim.kind.value, claim.point_id, claim.model_version)


def _queue_statement() -> Insert:
    return insert(vector_outbox).on_conflict_do_update(
        index_elements=["kind", "point_id", "model_version"], set_={"dirty": True}
    )


__all__ = [
    "Claim",
    "PointKind",
    "claim_points",
    "count_between",
    "count_waiting",
    "queue_faces",
    "queue_points",
    "raise_versions",
    "release_claims",
    "settle_claims",
]


def _make_queue_faces() -> Query:
    ids, versions = ARRAY(vector_outbox.c.point_id.type), ARRAY(vector_outbox.c.model_version.type)
    gone = (
        func.unnest(bindparam("gone_ids", type_=ids), bindparam("gone_versions", type_=versions))
        .table_valued(
            column("face_id", vector_outbox.c.point_id.type),
            column("model_version", vector_outbox.c.model_version.type),
            name="gone",
        )
        .render_derived()
    )
    points = union(
        select(face_embeddings.c.face_id, face_embeddings.c.model_version).where(
            face_embeddings.c.library_id == bindparam("library_id"),
            face_embeddings.c.face_id == func.any(bindparam("face_ids", type_=ids)),
        ),
        select(gone.c.face_id, gone.c.model_version),
    ).subquery("points")
    ordered = select(
        bindparam("kind", PointKind.FACE.value),
        points.c.face_id,
        points.c.model_version,
        bindparam("library_id", type_=vector_outbox.c.library_id.type),
        bindparam("queued_at", type_=vector_outbox.c.queued_at.type),
    ).order_by(points.c.face_id, points.c.model_version)
    columns = ["kind", "point_id", "model_version", "library_id", "queued_at"]
    statement = insert(vector_outbox).from_select(columns, ordered)
    return Query(
        statement.on_conflict_do_update(index_elements=["kind", "point_id", "model_version"], set_={"dirty": True})
    )


_QUEUE_FACES = _make_queue_faces()
