"""A servicer context that forwards to another, so that an interceptor replaces one behaviour and keeps the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Never

import grpc
import grpc.aio


class CallContext(grpc.aio.ServicerContext[Any, Any]):
    """Forwards everything to ``inner``."""

    def __init__(self, inner: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._inner = inner

    async def read(self) -> Any:
        return await self._inner.read()

    async def write(self, message: Any) -> None:
        await self._inner.write(message)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Never:
        await self._inner.abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> Never:
        await self._inner.abort_with_status(status)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        await self._inner.send_initial_metadata(initial_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._inner.set_trailing_metadata(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._inner.trailing_metadata()

    def invocation_metadata(self) -> Any:
        return self._inner.invocation_metadata()

    def set_code(self, code: grpc.StatusCode) -> None:
        self._inner.set_code(code)

    def code(self) -> Any:
        return self._inner.code()

    def set_details(self, details: str) -> None:
        self._inner.set_details(details)

    def details(self) -> str:
        return self._inner.details()

    def set_compression(self, compression: grpc.Compression) -> None:
        self._inner.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        self._inner.disable_next_message_compression()

    def peer(self) -> str:
        return self._inner.peer()

    def peer_identities(self) -> Iterable[bytes] | None:
        return self._inner.peer_identities()

    def peer_identity_key(self) -> str | None:
        return self._inner.peer_identity_key()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._inner.auth_context()

    def time_remaining(self) -> Any:
        return self._inner.time_remaining()

    def add_done_callback(self, callback: Any) -> None:
        self._inner.add_done_callback(callback)

    def cancelled(self) -> bool:
        return self._inner.cancelled()

    def done(self) -> bool:
        return self._inner.done()
