"""The model of a library: the first one that detects for it, until a migration changes that."""

from __future__ import annotations

from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.repository.models import activate_first_model, find_active_version, hold_active_version
from shared.db.engine import Transaction
from shared.errors import Contention, PreconditionFailed, Reason


async def agree_on_model(tx: Transaction, deps: DetectionDeps, library_id: str, pack: PackDescription) -> None:
    """Make ``pack`` the library's model if it has none.

    Raises :class:`PreconditionFailed` with MODEL_MISMATCH if it has another: vectors of two models are never compared.
    """
    await activate_first_model(tx, deps.clock, library_id, pack)
    refuse_other_model(await find_active_version(tx, library_id) or "", pack.model_version)


async def settle_on_model(tx: Transaction, deps: DetectionDeps, library_id: str, pack: PackDescription) -> None:
    """As :func:`agree_on_model`, for ``pack`` that was chosen because the library has it, or has none.

    Raises :class:`Contention` if the library has another: it has got that since.
    """
    await activate_first_model(tx, deps.clock, library_id, pack)
    await hold_model(tx, library_id, pack.model_version)


async def hold_model(tx: Transaction, library_id: str, model_version: str) -> None:
    """See to it that this is the library's model until the transaction ends: before faces are stored with vectors of it.

    A face stored under the old model while the library is cut over would have no vector of the new one, and be found by no
    search. Raises :class:`Contention` if the model was changed: what was seen has to be looked at again, by the other.
    """
    active = await hold_active_version(tx, library_id)
    if active != model_version:
        raise _changed(model_version, active)


def refuse_changed_model(chosen: str, actual: str) -> None:
    """Raise :class:`Contention` unless the servers chosen for a model have it still: they have to be chosen again."""
    if chosen != actual:
        raise _changed(chosen, actual)


def refuse_other_model(expected: str, actual: str) -> None:
    """Raise :class:`PreconditionFailed` with MODEL_MISMATCH unless both versions are the same."""
    if expected != actual:
        raise PreconditionFailed(
            f"the library's model is '{expected}', the detection service runs '{actual}'",
            reason=Reason.MODEL_MISMATCH,
            metadata={"expected": expected, "actual": actual},
        )


def _changed(chosen: str, actual: str | None) -> Contention:
    found = f", it is '{actual}' now" if actual else ""
    return Contention(
        f"the model was changed while '{chosen}' looked at the library's photos{found}",
        metadata={"expected": chosen, "actual": actual or ""},
    )
