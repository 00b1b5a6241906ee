"""Where photo bytes may come from: the request itself, or a uri below an allow-listed root.

A uri is written by a caller, so it is hostile until shown otherwise: it must name a regular file below one of
the configured folders after every symbolic link is followed, and not be larger than the limit.
"""

from __future__ import annotations

import asyncio
import os
import stat
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Never
from urllib.parse import unquote, urlsplit

from shared.config import ImageSettings
from shared.errors import ImageUnreadable, InvalidRequest, Reason


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
        self._executor = executor
        self._settings = settings

    async def read(self, source: PhotoSource) -> bytes:
        """The bytes of ``source``.

        Raises :class:`ImageUnreadable` (IMAGE_TOO_LARGE, metadata bytes and max_bytes) for too many bytes, and
        :class:`InvalidRequest` with reason URI_NOT_ALLOWED (metadata uri, allowed) or URI_UNREADABLE (metadata uri).
        """
        if source.content is not None:
            _refuse_bytes(len(source.content), self._settings.max_content_bytes)
            return source.content
        uri = source.uri or ""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._read_uri, uri)

    def _read_uri(self, uri: str) -> bytes:
        resolved = resolve_uri(uri, self._settings)
        limit = self._settings.max_bytes
        try:
            # NOFOLLOW: the resolved path has no link left, one that appears now was put there since.
            # NONBLOCK: a pipe must not hang us.
            descriptor = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise _uri_unreadable(uri, "it is not a regular file")
                _refuse_bytes(status.st_size, limit)
                data = file.read(limit + 1)
        except OSError as error:
            raise _uri_unreadable(uri, os.strerror(error.errno) if error.errno else "read error") from error
        _refuse_bytes(len(data), limit)
        return data


def resolve_uri(uri: str, settings: ImageSettings) -> Path:
    """The file a uri names, every symbolic link followed, if it may be read; whether it is there is not asked.

    Looks at the file system, so it blocks. Raises as :meth:`PhotoReader.read`.
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        _refuse_uri(uri, "it is not a uri", settings)
    if parts.scheme != "file":
        _refuse_uri(uri, f"scheme '{parts.scheme}' is not among the allowed ones", settings)
    if parts.netloc not in ("", "localhost"):
        _refuse_uri(uri, f"a file uri names no other host, '{parts.netloc}'", settings)
    path = unquote(parts.path)
    if "\x00" in path or not path.startswith("/"):
        _refuse_uri(uri, "its path is not absolute", settings)
    try:
        resolved = Path(path).resolve()
        roots = [root.expanduser().resolve() for root in settings.file_roots]
    except (OSError, RuntimeError) as error:
        raise _uri_unreadable(uri, "its path cannot be followed") from error
    if not any(resolved.is_relative_to(root) for root in roots):
        _refuse_uri(uri, "it is not below an allowed folder", settings)
    return resolved


def _refuse_bytes(size: int, limit: int) -> None:
    if size > limit:
        raise ImageUnreadable(
            f"the photo has {size} bytes, more than {limit} are not read",
            reason=Reason.IMAGE_TOO_LARGE,
            metadata={"bytes": str(size), "max_bytes": str(limit)},
        )


def _refuse_uri(uri: str, why: str, settings: ImageSettings) -> Never:
    # How many roots there are is told, not which: paths of the server are none of the caller's business.
    allowed = f"file ({len(settings.file_roots)} folders)" if settings.file_roots else "none"
    raise InvalidRequest(
        f"uri '{uri}' may not be read: {why}; allowed: {allowed}",
        field="uri",
        reason=Reason.URI_NOT_ALLOWED,
        metadata={"uri": uri, "allowed": allowed},
    )


def _uri_unreadable(uri: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"uri '{uri}' cannot be read: {why}", field="uri", reason=Reason.URI_UNREADABLE, metadata={"uri": uri}
    )
