"""The model of a library: the first one that detects for it, until a migration changes that."""

from __future__ import annotations

from services.detection.domain.model import DetectionDeps, PackDescription
from services.detection.repository.models import activate_first_model, find_active_version
from shared.db.engine import Transaction
from shared.errors import PreconditionFailed, Reason


async def agree_on_model(tx: Transaction, deps: DetectionDeps, library_id: str, pack: PackDescription) -> None:
    """Make ``pack`` the library's model if it has none.

    Raises :class:`PreconditionFailed` with MODEL_MISMATCH if it has another: vectors of two models are never compared.
    """
    await activate_first_model(tx, deps.clock, library_id, pack)
    refuse_other_model(await find_active_version(tx, library_id) or "", pack.model_version)


def refuse_other_model(expected: str, actual: str) -> None:
    """Raise :class:`PreconditionFailed` with MODEL_MISMATCH unless both versions are the same."""
    if expected != actual:
        raise PreconditionFailed(
            f"the library's model is '{expected}', the detection service runs '{actual}'",
            reason=Reason.MODEL_MISMATCH,
            metadata={"expected": expected, "actual": actual},
        )
