"""Makes the Qdrant collections of the configured model: ``python -m services.detection.prepare``.

Run once per environment and model, like a migration. Needs KITH_QDRANT_ALLOW_DESTRUCTIVE=true. Before an import of another
system's vectors it makes the collections of that model, by its version and dimension.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

import grpc.aio
import structlog

from services.detection.inference.engine import FaceEngine
from services.detection.inference.errors import InferenceError
from services.detection.repository.models import read_known_dimensions
from shared.config import Provider, Settings, load_settings
from shared.db.engine import DATABASE_FAILURES, Database
from shared.errors import KithError
from shared.ids import MODEL_VERSION
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
    return await prepare_models(settings, {engine.info.version: engine.info.dimension})


async def prepare_models(settings: Settings, dimensions: Mapping[str, int]) -> list[str]:
    """Create what is missing for models of these versions and lengths of vectors. Raises as above."""
    client = open_qdrant(settings.qdrant)
    try:
        collections = Collections(client, settings.qdrant, settings.environment)
        created = []
        for version, dimension in dimensions.items():
            created += await collections.create_missing(version, dimension)
        return created
    finally:
        await client.close()


async def prepare_known(settings: Settings) -> list[str]:
    """Create what is missing for every model that any library has vectors of: after Qdrant lost its data."""
    database = Database.connect(settings.database, application="kith.detection.prepare")
    try:
        async with database.transaction() as tx:
            dimensions = await read_known_dimensions(tx)
    finally:
        await database.close()
    return await prepare_models(settings, dimensions)


def main() -> int:
    arguments = _read_arguments()
    settings = load_settings()
    configure_logging(settings.telemetry, process="detection.prepare")
    if arguments.known:
        work = prepare_known(settings)
    elif arguments.model:
        work = prepare_models(settings, {arguments.model: arguments.dimension})
    else:
        work = prepare_collections(settings)
    try:
        created = asyncio.run(work)
    except (KithError, InferenceError, grpc.aio.AioRpcError, *DATABASE_FAILURES) as error:
        log.error("could not prepare", error=f"{type(error).__name__}: {error}")
        return 1
    log.info("prepared", created=created)
    return 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m services.detection.prepare",
        description="Create the Qdrant collections of the model pack KITH_MODEL_PACK where they are missing.",
        epilog="Needs KITH_QDRANT_ALLOW_DESTRUCTIVE=true. Collections that are there are checked and left as they are.",
    )
    parser.add_argument("--known", action="store_true", help="of every model that any library has vectors of, instead")
    parser.add_argument("--model", metavar="VERSION", help="of this model instead, which may be another system's")
    parser.add_argument("--dimension", type=int, metavar="N", help="the length of that model's vectors")
    arguments = parser.parse_args()
    if arguments.known and arguments.model:
        parser.error("--known and --model exclude each other")
    if (arguments.model is None) != (arguments.dimension is None):
        parser.error("--model and --dimension belong together")
    if arguments.model is not None and not (MODEL_VERSION.fullmatch(arguments.model) and arguments.dimension > 0):
        parser.error("VERSION is 1..41 small letters, digits or '_' (not first), N above 0")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
