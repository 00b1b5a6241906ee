"""Why a photo is not read, in the words every source uses.

A uri is told back to its caller, but not what may be a secret in it: who wrote a password or a signature into a uri
finds it in no log.
"""

from __future__ import annotations

import re
from typing import NoReturn

from shared.errors import ImageUnreadable, InvalidRequest, Reason, Unavailable

# A password may hold what would make it none in a proper uri: an @, or a slash.
_USERINFO = re.compile(r"(?<=//)(?:[^/]*@|[^/@]*:(?!\d*/).*@)", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_LONGEST_SHOWN = 300


def refuse_bytes(size: int, limit: int) -> None:
    """Raise :class:`ImageUnreadable` (IMAGE_TOO_LARGE) if ``size`` is more than ``limit``."""
    if size > limit:
        raise ImageUnreadable(
            f"the photo has {size} bytes, more than {limit} are not read",
            reason=Reason.IMAGE_TOO_LARGE,
            metadata={"bytes": str(size), "max_bytes": str(limit)},
        )


def refuse_uri(uri: str, why: str, allowed: str) -> NoReturn:
    """Raise :class:`InvalidRequest` (URI_NOT_ALLOWED); ``allowed`` says what is."""
    shown = show_uri(uri)
    raise InvalidRequest(
        f"uri '{shown}' may not be read: {why}; allowed: {allowed}",
        field="uri",
        reason=Reason.URI_NOT_ALLOWED,
        metadata={"uri": shown, "allowed": allowed},
    )


def uri_unreadable(uri: str, why: str) -> InvalidRequest:
    """URI_UNREADABLE as INVALID_ARGUMENT: the same uri will not do better the next time."""
    shown = show_uri(uri)
    return InvalidRequest(
        f"uri '{shown}' cannot be read: {why}", field="uri", reason=Reason.URI_UNREADABLE, metadata={"uri": shown}
    )


def uri_unreadable_now(uri: str, why: str) -> Unavailable:
    """URI_UNREADABLE as UNAVAILABLE: its store is in trouble, and the same uri may do better later."""
    shown = show_uri(uri)
    return Unavailable(
        f"uri '{shown}' cannot be read now: {why}", reason=Reason.URI_UNREADABLE, metadata={"uri": shown}
    )


def show_uri(uri: str) -> str:
    """``uri`` as it may be shown: without user, password, query and fragment, and not at any length."""
    shown = _USERINFO.sub("***@", _QUERY.sub(lambda rest: f"{rest[0][0]}***", uri))
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
