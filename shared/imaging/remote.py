"""Photos in buckets and on web servers, read over the network.

Buckets are read by ``obstore``, web servers by ``httpx``: obstore's HTTP store follows a redirect to any host, which
would let a server, or who may put redirects on it, send us anywhere in our own network, and it reads no body without
Content-Length. Both hand out the body in pieces, so that no more of it is ever held than the limit allows.

A store in trouble (5xx, 408, 429, no connection, silence) is asked again twice. If it goes on, that is UNAVAILABLE to a
caller who asked for one photo, and in a stream or session the failure of that photo, to be tried again with the other
failed ones: a session must not wait for one bad object.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import httpx
import obstore
import structlog
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import GCSStore, S3Store

from shared.config import ImageSettings, PhotoStoreSettings
from shared.imaging.refusals import refuse_bytes, uri_unreadable, uri_unreadable_now
from shared.imaging.roots import RemotePhoto, RemoteRoot, Scheme

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, RetryConfig, S3Config

log = structlog.get_logger(__name__)

_RETRIES = 2
_FIRST_PAUSE_S = 0.1
_CONNECT_TIMEOUT_S = 5.0
_CHUNK = 256 * 1024
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
# obstore tells a status it has no exception for only in words.
_STATUS = re.compile(r"status code: (\d{3})")


class RemoteStore(Protocol):
    """One remote root."""

    async def read(self, photo: RemotePhoto, uri: str) -> bytes:
        """The bytes of ``photo``; ``uri`` is for messages.

        Raises :class:`ImageUnreadable` (IMAGE_TOO_LARGE), or with URI_UNREADABLE :class:`InvalidRequest` or, if another
        try may help, :class:`Unavailable`.
        """
        ...

    async def close(self) -> None:
        """End its connections."""
        ...


def open_store(root: RemoteRoot, settings: ImageSettings) -> RemoteStore:
    """The store behind ``root``. Connects to nothing. Raises ``OSError`` or ``ValueError`` for what is configured
    wrongly, such as a ``ca_file`` that cannot be read.
    """
    options = settings.stores.get(root.uri, PhotoStoreSettings())
    if root.scheme in (Scheme.HTTPS, Scheme.HTTP):
        return WebServer(root, settings, options)
    return Bucket(root, settings, options)


class Bucket:
    """A bucket of S3, of what speaks like it, or of Google. Whose it is, obstore knows from the environment."""

    def __init__(self, root: RemoteRoot, settings: ImageSettings, options: PhotoStoreSettings) -> None:
        self._root = root
        self._limit = settings.max_bytes
        within = timedelta(seconds=settings.read_timeout_s)
        client: ClientConfig = {
            "timeout": within,
            "connect_timeout": timedelta(seconds=min(_CONNECT_TIMEOUT_S, settings.read_timeout_s)),
        }
        if options.allow_http:
            client["allow_http"] = True
        if options.ca_file is not None:
            client["root_certificate"] = options.ca_file.read_bytes()
        retry: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": within,
            "backoff": {"init_backoff": timedelta(seconds=_FIRST_PAUSE_S)},
        }
        self._store = _open_bucket(root, options, client, retry)

    async def read(self, photo: RemotePhoto, uri: str) -> bytes:
        try:
            found = await obstore.get_async(self._store, "/".join(photo.segments))
            refuse_bytes(found.meta["size"], self._limit)
            return await _collect(found.stream(min_chunk_size=_CHUNK), self._limit)
        except FileNotFoundError as error:
            raise uri_unreadable(uri, "there is nothing") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise uri_unreadable(uri, "the store denies access") from error
        except ValueError as error:
            raise uri_unreadable(uri, "its path cannot be a key of this store") from error
        except BaseError as error:
            status = _STATUS.search(str(error))
            if status is not None and int(status[1]) not in _PASSING:
                raise uri_unreadable(uri, f"the store refuses it ({status[1]})") from error
            log.warning("photo_store_failed", root=self._root.uri, error=str(error)[:500])
            why = f"the store fails ({status[1]})" if status is not None else "the store cannot be reached"
            raise uri_unreadable_now(uri, why) from error

    async def close(self) -> None:
        """Nothing to do: obstore's connections end with the store."""


class WebServer:
    """Photos that a web server gives to everybody who asks."""

    def __init__(self, root: RemoteRoot, settings: ImageSettings, options: PhotoStoreSettings) -> None:
        self._root = root
        self._limit = settings.max_bytes
        trusted = ssl.create_default_context()
        if options.ca_file is not None:
            trusted.load_verify_locations(options.ca_file)
        connecting = min(_CONNECT_TIMEOUT_S, settings.read_timeout_s)
        self._client = httpx.AsyncClient(
            verify=trusted,
            follow_redirects=False,
            timeout=httpx.Timeout(settings.read_timeout_s, connect=connecting),
            # A compressed answer may be far longer than it is: none is asked for, none is taken.
            headers={"Accept-Encoding": "identity"},
        )

    async def read(self, photo: RemotePhoto, uri: str) -> bytes:
        path = "/".join(quote(segment, safe="") for segment in photo.segments)
        url = f"{self._root.scheme}://{self._root.authority}/{path}"
        for pause in [_FIRST_PAUSE_S * 2**attempt for attempt in range(_RETRIES)]:
            try:
                return await self._get(url, uri)
            except _Passing as trouble:
                log.info("photo_store_retried", root=self._root.uri, error=str(trouble))
            await asyncio.sleep(pause)
        try:
            return await self._get(url, uri)
        except _Passing as trouble:
            log.warning("photo_store_failed", root=self._root.uri, error=str(trouble))
            raise uri_unreadable_now(uri, trouble.why) from trouble

    async def _get(self, url: str, uri: str) -> bytes:
        try:
            async with self._client.stream("GET", url) as answer:
                self._check(answer, uri)
                return await _collect(answer.aiter_raw(_CHUNK), self._limit)
        except httpx.TransportError as error:
            raise _Passing("the server cannot be reached", f"{type(error).__name__}: {error}") from error

    def _check(self, answer: httpx.Response, uri: str) -> None:
        """Raise unless the body that follows is the photo, and not too long as far as the server says."""
        status = answer.status_code
        if status in _PASSING:
            raise _Passing(f"the server fails ({status})", f"status {status}")
        if status in (404, 410):
            raise uri_unreadable(uri, f"there is nothing ({status})")
        if status in (401, 403):
            raise uri_unreadable(uri, f"the server denies access ({status})")
        if answer.is_redirect:
            raise uri_unreadable(uri, f"the server points elsewhere ({status}), and redirects are not followed")
        if status != 200:
            raise uri_unreadable(uri, f"the server refuses it ({status})")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise uri_unreadable(uri, "the server sends it compressed, unasked")
        length = answer.headers.get("Content-Length", "")
        if length.isdecimal():
            refuse_bytes(int(length), self._limit)

    async def close(self) -> None:
        await self._client.aclose()


class _Passing(Exception):
    """Trouble of the server that another try may not meet: ``why`` for the caller, the message for the log."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(detail)
        self.why = why


def _open_bucket(
    root: RemoteRoot, options: PhotoStoreSettings, client: ClientConfig, retry: RetryConfig
) -> S3Store | GCSStore:
    if root.scheme is Scheme.GS:
        google: GCSConfig = {}
        if options.endpoint is not None:
            google["base_url"] = options.endpoint
        if options.anonymous:
            google["skip_signature"] = True
        return GCSStore(root.authority, config=google, client_options=client, retry_config=retry)
    amazon: S3Config = {}
    if options.endpoint is not None:
        amazon["endpoint"] = options.endpoint
    if options.region is not None:
        amazon["region"] = options.region
    if options.anonymous:
        amazon["skip_signature"] = True
    return S3Store(root.authority, config=amazon, client_options=client, retry_config=retry)


async def _collect(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """All of a body; raises :class:`ImageUnreadable` as soon as it is longer than ``limit``."""
    parts = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        refuse_bytes(size, limit)
        parts.append(chunk)
    return b"".join(parts)
