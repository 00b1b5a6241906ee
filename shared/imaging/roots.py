"""The roots below which uris may be read, and which place below them a uri names.

A uri is written by a caller, so it is hostile until shown otherwise. It is taken apart here and nowhere else: what is
read later is put together from the root's own host or bucket and the checked segments of the path, never from the
caller's text, so that no two parsers can disagree about it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from shared.imaging.refusals import refuse_uri, uri_unreadable

# S3 and GCS keys have at most 1024 bytes, three characters each when escaped.
_LONGEST = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PORTS = {"https": 443, "http": 80}


class Scheme(StrEnum):
    """Where photos may be: the schemes of roots."""

    FILE = "file"
    S3 = "s3"
    GS = "gs"
    HTTPS = "https"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class RemoteRoot:
    """A bucket or a web server. ``uri`` is as configured; ``authority`` is ``bucket`` or ``host[:port]`` in lower case;
    ``segments`` is the unescaped path below which photos are.
    """

    uri: str
    scheme: Scheme
    authority: str
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemotePhoto:
    """A photo below a remote root. ``segments`` is its whole unescaped path, that of the root included."""

    root: RemoteRoot
    segments: tuple[str, ...]


class PhotoRoots:
    """The allow-list: a uri is inside one of the roots, or it is refused."""

    def __init__(self, uris: Sequence[str]) -> None:
        """``uris`` as :attr:`ImageSettings.roots` has validated them. Raises ``ValueError`` for a path that is none."""
        self._folders: list[Path] = []
        self.remote: list[RemoteRoot] = []
        for uri in uris:
            parts = urlsplit(uri)
            if parts.scheme == Scheme.FILE:
                self._folders.append(Path(unquote(parts.path)))
            else:
                path = parts.path.strip("/")
                segments = _split_path(path) if path else ()
                self.remote.append(RemoteRoot(uri, Scheme(parts.scheme), _authority(parts), segments))
        # Of nested roots the inner one counts: it may have another store's settings.
        self.remote.sort(key=lambda root: -len(root.segments))
        self._allowed = _describe(len(self._folders), self.remote)

    def resolve(self, uri: str) -> Path | RemotePhoto:
        """The place ``uri`` names, if it may be read; whether anything is there is not asked.

        A file's place is looked at on the disk, which may block; no network is touched. Raises
        :class:`InvalidRequest`: URI_NOT_ALLOWED, or URI_UNREADABLE for a path of links without end.
        """
        return self.resolve_file(uri) if names_file(uri) else self.resolve_remote(uri)

    def resolve_file(self, uri: str) -> Path:
        """As :meth:`resolve`, for a uri that names a file: its path with every symbolic link followed."""
        try:
            parts = _split_uri(uri)
            if parts.netloc not in ("", "localhost"):
                raise ValueError(f"a file uri names no other host, '{parts.netloc}'")
            path = unquote(parts.path)
            if "\x00" in path or not path.startswith("/"):
                raise ValueError("its path is not absolute")
        except ValueError as error:
            refuse_uri(uri, str(error), self._allowed)
        try:
            resolved = Path(path).resolve()
            # Followed anew each time: a link or a mount may have come or gone since the process began.
            folders = [folder.resolve() for folder in self._folders]
        except (OSError, RuntimeError) as error:
            raise uri_unreadable(uri, "its path cannot be followed") from error
        if not any(resolved.is_relative_to(folder) for folder in folders):
            refuse_uri(uri, "it is not below an allowed folder", self._allowed)
        return resolved

    def resolve_remote(self, uri: str) -> RemotePhoto:
        """As :meth:`resolve`, for a uri that names no file. Never blocks."""
        try:
            parts = _split_uri(uri)
            if parts.scheme not in {root.scheme.value for root in self.remote}:
                raise ValueError(f"scheme '{parts.scheme}' is not among the allowed ones")
            authority = _authority(parts)
            segments = _split_path(parts.path.removeprefix("/"))
        except ValueError as error:
            refuse_uri(uri, str(error), self._allowed)
        for root in self.remote:
            depth = len(root.segments)
            same = (root.scheme, root.authority, root.segments) == (parts.scheme, authority, segments[:depth])
            if same and len(segments) > depth:
                return RemotePhoto(root, segments)
        refuse_uri(uri, "it is not below an allowed root", self._allowed)


def names_file(uri: str) -> bool:
    """Whether ``uri`` is one of a file, allowed or not."""
    return uri[:5].lower() == "file:"


def _split_uri(uri: str) -> SplitResult:
    """The parts of ``uri``. Raises ``ValueError`` for what no uri of a photo needs and what urllib would pass over."""
    if len(uri) > _LONGEST:
        raise ValueError(f"it is longer than {_LONGEST} characters")
    if _CONTROL.search(uri) or uri != uri.strip():
        raise ValueError("it has control characters, or blanks around it")
    parts = urlsplit(uri)
    if "?" in uri or "#" in uri or "@" in parts.netloc:
        raise ValueError("it has a user, a query or a fragment")
    return parts


def _authority(parts: SplitResult) -> str:
    """Bucket, or host and port as far as it is not the scheme's own. Raises ``ValueError`` for a port that is none."""
    host, port = parts.hostname or "", parts.port
    if parts.scheme not in _PORTS:
        return parts.netloc
    return host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"


def _split_path(path: str) -> tuple[str, ...]:
    """Segments of an escaped path, unescaped once. Raises ``ValueError`` for those with which a server or a proxy might
    end up elsewhere than they say.
    """
    segments = []
    for escaped in path.split("/"):
        try:
            segment = unquote(escaped, errors="strict")
        except UnicodeDecodeError as error:
            raise ValueError("its path is not UTF-8") from error
        # Some servers unescape twice.
        if segment in ("", ".", "..") or unquote(segment) in (".", ".."):
            raise ValueError("its path has empty or dotted segments")
        if "/" in segment or "\\" in segment or _CONTROL.search(segment):
            raise ValueError("its path has escaped slashes, backslashes or control characters")
        segments.append(segment)
    return tuple(segments)


def _describe(folders: int, remote: Sequence[RemoteRoot]) -> str:
    """What is allowed: how many roots of each scheme. Which is told to nobody: places of the server are none of the
    caller's business.
    """
    counts = {Scheme.FILE.value: (folders, "folders")}
    for scheme in (Scheme.S3, Scheme.GS, Scheme.HTTPS, Scheme.HTTP):
        counts[scheme.value] = (sum(root.scheme is scheme for root in remote), "roots")
    return ", ".join(f"{name} ({count} {word})" for name, (count, word) in counts.items() if count) or "none"
