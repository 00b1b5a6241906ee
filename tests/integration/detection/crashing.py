"""A detection server that dies of certain photos.

Everything in it is the real server, except that a photo whose bytes end in :data:`DEADLY` aborts the process as it is decoded,
as a native library with a defect would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from unittest.mock import patch

from services.detection.server import start
from shared.imaging.decode import DecodedImage, ImageDecoder
from shared.rpc.lifecycle import run_process

DEADLY = b"kith: this photo kills"


class DyingDecoder(ImageDecoder):
    """Decodes, or aborts the process."""

    async def decode(self, data: bytes) -> DecodedImage:
        if data.endswith(DEADLY):
            os.abort()
        return await super().decode(data)


def serve(env: Mapping[str, str]) -> None:
    """Be such a server, with ``env`` as the environment, until the process ends."""
    os.environ.update(env)
    with patch("services.detection.wiring.ImageDecoder", DyingDecoder):
        sys.exit(run_process("detection.server", start))
