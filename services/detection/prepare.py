"""Makes the Qdrant collections of the configured model: ``python -m services.detection.prepare``.

Run once per environment and model, like a migration. Needs KITH_QDRANT_ALLOW_DESTRUCTIVE=true.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import grpc.aio
import structlog

from services.detection.inference.engine import FaceEngine
from services.detection.inference.errors import InferenceError
from shared.config import Provider, Settings, load_settings
from shared.errors import KithError
from shared.telemetry.logging import configure_logging
from shared.vectors.client import open_qdrant
from shared.vectors.collections import Collections

log = structlog.get_logger(__name__)


async def prepare_collections(settings: Settings) -> list[str]:
    """Create what is missing for the configured pack; answers the names created.

    The pack is loaded, since only that tells its dimension for sure; on the CPU, as no device is needed for it. Raises
    :class:`InferenceError` for a pack that cannot be loaded, :class:`PreconditionFailed` as
    :meth:`Collections.create_missing`.
    """
    model = settings.model.model_copy(update={"provider": Provider.CPU})
    engine = await FaceEngine.load(settings.model_copy(update={"model": model}))
    await engine.close()
    client = open_qdrant(settings.qdrant)
    try:
        collections = Collections(client, settings.qdrant, settings.environment)
        return await collections.create_missing(engine.info.version, engine.info.dimension)
    finally:
        await client.close()


def main() -> int:
    description = "Create the Qdrant collections of the model pack KITH_MODEL_PACK where they are missing."
    needs = "Needs KITH_QDRANT_ALLOW_DESTRUCTIVE=true. Collections that are there are checked and left as they are."
    argparse.ArgumentParser(
        prog="python -m services.detection.prepare", description=description, epilog=needs
    ).parse_args()
    settings = load_settings()
    configure_logging(settings.telemetry, process="detection.prepare")
    try:
        created = asyncio.run(prepare_collections(settings))
    except (KithError, InferenceError, grpc.aio.AioRpcError) as error:
        log.error("could not prepare", error=f"{type(error).__name__}: {error}")
        return 1
    log.info("prepared", created=created)
    return 0


if __name__ == "__main__":
    sys.exit(main())
