"""SQL of the ledger."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import insert

from services.persons.domain.model import Change, PersonsDeps
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.db.tables_persons import changes


async def record_change(tx: Transaction, deps: PersonsDeps, library_id: str, change: Change, caller: Caller) -> UUID:
    """Enter a change, in the transaction that makes it."""
    change_id = deps.ids.new_uuid()
    await tx.execute(
        insert(changes),
        {
            "change_id": change_id,
            "library_id": library_id,
            "kind": change.kind.value,
            "actor": caller.subject,
            "reason": change.reason,
            "rpc": caller.rpc,
            "request_id": caller.request_id,
            "person_ids": list(change.person_ids),
            "face_ids": list(change.face_ids),
            "before": change.before,
            "after": change.after,
            "created_at": deps.clock.now(),
        },
    )
    return change_id
