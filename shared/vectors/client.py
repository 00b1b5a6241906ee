"""The connection to Qdrant, always over gRPC."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from qdrant_client import AsyncQdrantClient

from shared.config import QdrantSettings

DEFAULT_GRPC_PORT = 6334


def open_qdrant(settings: QdrantSettings) -> AsyncQdrantClient:
    """A client for ``settings.url``, whose port is Qdrant's gRPC port. Connects on first use."""
    url = urlsplit(settings.url)
    return AsyncQdrantClient(
        host=url.hostname or "127.0.0.1",
        grpc_port=url.port or DEFAULT_GRPC_PORT,
        https=url.scheme == "https",
        prefer_grpc=True,
        api_key=settings.api_key.get_secret_value() if settings.api_key else None,
        timeout=math.ceil(settings.timeout_s),
        check_compatibility=False,
        grpc_options={"grpc.max_receive_message_length": 64 << 20},
    )
