"""The connection to Redis, one pool per process."""

from __future__ import annotations

from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as ConnectionLost

from shared.config import RedisSettings as Settings

SLICE_TASK = "run_slice"


def queue_name(settings: Settings, service: str) -> str:
    """Name of the queue of one service's jobs."""
    return f"{settings.queue_prefix}:{service}"


async def open_queue(settings: Settings, service: str) -> ArqRedis:
    """Connect to Redis. Raises ``redis.exceptions.RedisError`` if it does not answer after a few tries."""
    redis = RedisSettings.from_dsn(settings.url.get_secret_value())
    redis.conn_timeout = 2
    redis.conn_retries = 3
    # After a crash Redis answers BusyLoading until it has read its file.
    redis.retry = Retry(ExponentialBackoff(cap=1.0, base=0.05), retries=5)
    redis.retry_on_error = [BusyLoadingError, ConnectionLost]
    return await create_pool(redis, default_queue_name=queue_name(settings, service))
