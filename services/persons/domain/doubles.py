"""Photos that may show one person twice: collages and mirrors. It binds machines only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services.persons.domain.model import Change, ChangeKind, PersonsDeps
from services.persons.repository.changes import record_change
from services.persons.repository.doubles import lock_photos, write_doubles
from shared.caller import Caller
from shared.db.engine import Transaction
from shared.errors import FieldViolation, NotFound


@dataclass(frozen=True, slots=True)
class AllowDoubles:
    """Photos, each once, that may show one person twice, or may not again."""

    library_id: str
    asset_ids: Sequence[str]
    allowed: bool
    reason: str = ""


async def allow_doubles(tx: Transaction, deps: PersonsDeps, command: AllowDoubles, caller: Caller) -> UUID | None:
    """Do so; returns the change, or None if it was so already. Assignments stay as they are.

    Raises :class:`NotFound` naming every photo that is not registered; then nothing is changed.
    """
    refuse_unknown_photos(command.asset_ids, await lock_photos(tx, command.library_id, command.asset_ids))
    wanted = dict.fromkeys(command.asset_ids, command.allowed)
    changed = sorted(await write_doubles(tx, deps.clock, command.library_id, wanted, caller.subject))
    if not changed:
        return None
    change = Change(
        ChangeKind.DOUBLES_ALLOWED,
        before={"doubles": dict.fromkeys(changed, not command.allowed)},
        after={"doubles": dict.fromkeys(changed, command.allowed)},
        reason=command.reason,
    )
    return await record_change(tx, deps, command.library_id, change, caller)


def refuse_unknown_photos(asset_ids: Sequence[str], present: set[str]) -> None:
    """Raise :class:`NotFound` that names every one of a request's photos that is not ``present``."""
    missing = [(index, asset_id) for index, asset_id in enumerate(asset_ids) if asset_id not in present]
    if missing:
        violations = [FieldViolation(f"asset_ids[{index}]", f"asset '{name}' not found") for index, name in missing]
        raise NotFound("asset", missing[0][1], violations=violations)
