"""Identifiers: UUIDv7 for rows, ``clu_`` + 12 hex for clusters. Passed in, so that tests can make them repeatable."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from shared.clock import Clock
from shared.errors import InvalidRequest

CLUSTER_ID = re.compile(r"^clu_[0-9a-f]{12}$")
MODEL_VERSION = re.compile(r"^[a-z0-9][a-z0-9_]{0,40}$")
LIBRARY_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
DEFAULT_LIBRARY = "default"
MAX_ASSET_ID = 128


class IdFactory(Protocol):
    """Makes new identifiers."""

    def new_uuid(self) -> UUID:
        """A fresh UUIDv7: sorts by the time it was made."""
        ...

    def new_cluster_id(self) -> str:
        """A fresh cluster id, ``clu_`` and 12 hex digits."""
        ...


class RandomIds:
    """Identifiers from the clock and the operating system's random source.

    UUIDv7 as in RFC 9562, section 5.7: 48 bits of Unix milliseconds, version, 12 random bits, variant, 62 random bits.
    """

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._random_bytes = random_bytes

    def new_uuid(self) -> UUID:
        millis = int(self._clock.now().timestamp() * 1000) & ((1 << 48) - 1)
        tail = int.from_bytes(self._random_bytes(10), "big")
        high = (millis << 16) | 0x7000 | ((tail >> 62) & 0x0FFF)
        low = (0b10 << 62) | (tail & ((1 << 62) - 1))
        return UUID(int=(high << 64) | low)

    def new_cluster_id(self) -> str:
        return f"clu_{self._random_bytes(6).hex()}"


def parse_uuid(value: str, field: str) -> UUID:
    """Read a UUID in its usual 36-character form; raises :class:`InvalidRequest` naming ``field``."""
    try:
        parsed = UUID(value)
    except ValueError as error:
        raise InvalidRequest(f"{field} must be a UUID", field=field) from error
    if str(parsed) != value.lower():
        raise InvalidRequest(f"{field} must be a UUID in its 36-character form", field=field)
    return parsed


def parse_cluster_id(value: str, field: str = "cluster_id") -> str:
    """Check a cluster id; raises :class:`InvalidRequest` naming ``field``."""
    if not CLUSTER_ID.fullmatch(value):
        raise InvalidRequest(f"{field} must be 'clu_' and 12 hex digits", field=field)
    return value


def parse_library_id(value: str, field: str = "library_id") -> str:
    """Check a library id; empty means the library ``default``."""
    if not value:
        return DEFAULT_LIBRARY
    if not LIBRARY_ID.fullmatch(value):
        raise InvalidRequest(f"{field} must be 1..64 letters, digits, '.', '_' or '-'", field=field)
    return value


def parse_model_version(value: str, field: str = "model_version") -> str:
    """Check the name of an embedding space; raises :class:`InvalidRequest` naming ``field``."""
    if not MODEL_VERSION.fullmatch(value):
        raise InvalidRequest(f"{field} must be 1..41 small letters, digits or '_', a '_' not first", field=field)
    return value


def parse_asset_id(value: str, field: str = "asset_id") -> str:
    """Check the caller's own id of a photo: 1..128 printable characters."""
    if not value or len(value) > MAX_ASSET_ID or not value.isprintable():
        raise InvalidRequest(f"{field} must be 1..{MAX_ASSET_ID} printable characters", field=field)
    return value
