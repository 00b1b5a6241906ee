"""Photos a detector broke off at: suspected together, then tried alone, and failed once one is seen to be the cause.

A detector that dies answers nothing, so all that is known is what it had in hand, which is many photos at once. Each of
them becomes a suspect; suspects are looked at last and one at a time, which clears the innocent, as an answer ends a photo's
part in the session. A photo fails only if the detector died ``TRIALS`` times while it was on trial: deaths with other
photos in hand make it suspect but never count, so a detector that is killed for another reason, however often, condemns
none but a photo that was alone with it each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.detection.domain.model import DetectionDeps, PhotoFailed
from services.detection.domain.storing import store_looks
from services.detection.repository.assets import lock_captured_times
from services.detection.repository.session_photos import add_breaks
from shared.db.engine import Transaction
from shared.errors import Reason
from shared.jobs.model import Progress

TRIALS = 3


async def note_break(
    tx: Transaction, deps: DetectionDeps, library_id: str, session_id: UUID, in_hand: Sequence[str], *, alone: bool
) -> Progress:
    """Write down that a detector broke off with these photos in hand, and fail what is now known to be the cause.

    ``alone``: the photo was on trial. Answers what that adds to the job's progress.
    """
    # Photos before the session's rows of them, as where looks are stored.
    await lock_captured_times(tx, library_id, in_hand)
    breaks = await add_breaks(tx, session_id, in_hand, alone=alone)
    # The first break is the suspicion; only those after it happened on trial.
    causes = [asset_id for asset_id, count in breaks.items() if count > TRIALS]
    if not causes:
        return Progress()
    message = f"the detector died {TRIALS} times while it looked at this photo alone"
    looks = [PhotoFailed(asset_id, Reason.DETECTOR_CRASHED.value, message) for asset_id in causes]
    return await store_looks(tx, deps, library_id, session_id, "", looks)
