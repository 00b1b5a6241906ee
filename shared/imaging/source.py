"""Where photo bytes may come from: the request itself, or a uri below an allow-listed root.

Files are read in threads, since a disk has no other way of waiting; what comes over the network needs none.
"""

from __future__ import annotations

import asyncio
import os
import stat
from concurrent.futures import Executor
from dataclasses import dataclass

from shared.config import ImageSettings
from shared.errors import InvalidRequest
from shared.imaging.refusals import refuse_bytes, uri_unreadable, uri_unreadable_now
from shared.imaging.remote import RemoteStore, open_store
from shared.imaging.roots import PhotoRoots, RemoteRoot, names_file


@dataclass(frozen=True, slots=True)
class PhotoSource:
    """Exactly one of ``content`` (the bytes) and ``uri``."""

    content: bytes | None = None
    uri: str | None = None

    def __post_init__(self) -> None:
        if (self.content is None) == (self.uri is None):
            raise InvalidRequest("exactly one of content and uri must be set", field="image")


class PhotoReader:
    """Reads photo bytes within the limits of :class:`ImageSettings`; files are read in ``executor``'s threads."""

    def __init__(self, executor: Executor, settings: ImageSettings) -> None:
        """Connects to nothing. Raises as :func:`shared.imaging.remote.open_store`."""
        self._executor = executor
        self._settings = settings
        self._roots = PhotoRoots(settings.roots)
        self._stores: dict[RemoteRoot, RemoteStore] = {root: open_store(root, settings) for root in self._roots.remote}

    async def read(self, source: PhotoSource) -> bytes:
        """The bytes of ``source``.

        Raises :class:`ImageUnreadable` (IMAGE_TOO_LARGE, metadata bytes and max_bytes) for too many bytes,
        :class:`InvalidRequest` with reason URI_NOT_ALLOWED (metadata uri, allowed) or URI_UNREADABLE (metadata uri), and
        :class:`Unavailable` with URI_UNREADABLE if the uri's store is in trouble or takes longer than
        ``read_timeout_s``.
        """
        if source.content is not None:
            refuse_bytes(len(source.content), self._settings.max_content_bytes)
            return source.content
        uri = source.uri or ""
        limit = self._settings.read_timeout_s
        try:
            async with asyncio.timeout(limit):
                return await self._read_uri(uri)
        except TimeoutError as error:
            raise uri_unreadable_now(uri, f"it took longer than {limit:g} s") from error

    async def close(self) -> None:
        """End the connections to remote stores."""
        for store in self._stores.values():
            await store.close()

    async def _read_uri(self, uri: str) -> bytes:
        if names_file(uri):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._read_file, uri)
        photo = self._roots.resolve_remote(uri)
        return await self._stores[photo.root].read(photo, uri)

    def _read_file(self, uri: str) -> bytes:
        path = self._roots.resolve_file(uri)
        limit = self._settings.max_bytes
        try:
            # NOFOLLOW: the resolved path has no link left, one that appears now was put there since.
            # NONBLOCK: a pipe must not hang us.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise uri_unreadable(uri, "it is not a regular file")
                refuse_bytes(status.st_size, limit)
                data = file.read(limit + 1)
        except OSError as error:
            raise uri_unreadable(uri, os.strerror(error.errno) if error.errno else "read error") from error
        refuse_bytes(len(data), limit)
        return data
