"""Who may call what: the seam between Kith and whatever knows its callers.

A server is built with one :class:`Authenticator`. Two come with the house: everybody may do everything (development), and
bearer tokens from a file that holds only their SHA-256.

A service that calls another shows its own token and names whom it calls for (:func:`act_for`). The subject becomes theirs, so
that the ledger says who did it; libraries and verbs stay those of the token. That gives nobody a right they lack: the service
named is the one that let them in, it has held their own token against the same library and the verb of the call it now
serves, and only a token with the verb :attr:`Verb.ACT_FOR_OTHERS` is believed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.config import AuthMode, AuthSettings
from shared.errors import InvalidRequest, PermissionDenied, Reason, Unauthenticated
from shared.rpc.method import Method

ANY_LIBRARY = "*"
MAX_SUBJECT: Final = 200


class Verb(StrEnum):
    """What a token may do. None includes another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    ACT_FOR_OTHERS = "act_for_others"


_READING = re.compile(r"^(Get|List|BatchGet|Watch|Wait|Search|Compare|Detect|Check|Estimate|Explain|Match)(?=[A-Z]|$)")
_ADMIN_SERVICES = frozenset({"ModelService"})
_ADMIN_METHODS = frozenset({"DoctorService/Reconcile", "DoctorService/RebuildVectors", "PersonService/ForgetPerson"})


@cache
def verb_of(method: Method) -> Verb:
    """The verb a call needs, from its name: reading is reading everywhere, the rest is writing or administration."""
    if _READING.match(method.name):
        return Verb.READ
    service = method.service.rpartition(".")[2]
    if service in _ADMIN_SERVICES or f"{service}/{method.name}" in _ADMIN_METHODS:
        return Verb.ADMIN
    return Verb.WRITE


def check_subject(subject: str) -> str:
    """``subject`` itself; raises ``ValueError`` unless it is 1..200 printable characters."""
    if not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise ValueError(f"a subject has 1..{MAX_SUBJECT} printable characters")
    return subject


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. ``libraries`` is ``None`` for one that may use every library.

    ``through``: subject of the service that calls for the caller; empty if they call themselves.
    """

    subject: str
    libraries: frozenset[str] | None
    verbs: frozenset[Verb]
    through: str = ""

    def may(self, verb: Verb) -> bool:
        """Whether the caller may do ``verb`` at all."""
        return verb in self.verbs

    def may_use(self, library_id: str) -> bool:
        """Whether the caller may see ``library_id``."""
        return self.libraries is None or library_id in self.libraries


def act_for(principal: Principal, subject: str) -> Principal:
    """``principal`` calling for ``subject``: under their name, with its own libraries and verbs.

    Raises :class:`PermissionDenied` if it may not act for others, :class:`InvalidRequest` if nobody can be called that.
    """
    if not principal.may(Verb.ACT_FOR_OTHERS):
        raise PermissionDenied(
            "this token may not act for others",
            reason=Reason.VERB_FORBIDDEN,
            metadata={"verb": Verb.ACT_FOR_OTHERS.value},
        )
    try:
        return replace(principal, subject=check_subject(subject), through=principal.subject)
    except ValueError as error:
        raise InvalidRequest(f"whom this call is for: {error}") from None


class Authenticator(Protocol):
    """Turns a bearer token into a caller."""

    async def authenticate(self, bearer: str | None) -> Principal:
        """``bearer`` is the token of ``authorization: Bearer ...``, if one came.

        Raises :class:`Unauthenticated` if there is none, or one this server does not know.
        """
        ...


class OpenAuthenticator:
    """Everybody may do everything. For development, and behind something else that decides."""

    def __init__(self) -> None:
        self._anybody = Principal("anonymous", None, frozenset(Verb))

    async def authenticate(self, bearer: str | None) -> Principal:
        return self._anybody


class TokenEntry(BaseModel):
    """One token of the tokens file; ``libraries`` may be ``["*"]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    subject: Annotated[str, AfterValidator(check_subject)]
    libraries: tuple[str, ...]
    verbs: frozenset[Verb]

    def principal(self) -> Principal:
        """The caller this token stands for."""
        everywhere = ANY_LIBRARY in self.libraries
        return Principal(self.subject, None if everywhere else frozenset(self.libraries), self.verbs)


class TokenAuthenticator:
    """Bearer tokens, known by their SHA-256."""

    def __init__(self, entries: Sequence[TokenEntry]) -> None:
        self._entries = tuple((bytes.fromhex(entry.token_sha256), entry.principal()) for entry in entries)

    @classmethod
    def from_file(cls, path: Path) -> TokenAuthenticator:
        """Read ``[{token_sha256, subject, libraries, verbs}]``.

        Raises ``OSError`` if it cannot be read and ``ValueError`` saying which entry is wrong, without its contents.
        """
        try:
            entries = TypeAdapter(list[TokenEntry]).validate_json(path.read_bytes())
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
                for item in error.errors(include_input=False, include_url=False)
            )
            raise ValueError(f"tokens file {path.name}: {wrong}") from None
        return cls(entries)

    async def authenticate(self, bearer: str | None) -> Principal:
        if not bearer:
            raise Unauthenticated("this call needs a token: send metadata 'authorization: Bearer <token>'")
        digest = hashlib.sha256(bearer.encode()).digest()
        found: Principal | None = None
        # Every entry is compared, so that the time taken says nothing about which one matched.
        for known, principal in self._entries:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise Unauthenticated("this token is not known here")
        return found


def build_authenticator(settings: AuthSettings) -> Authenticator:
    """The authenticator ``settings.mode`` asks for. Errors as of :meth:`TokenAuthenticator.from_file`."""
    if settings.mode is AuthMode.DISABLED:
        return OpenAuthenticator()
    if settings.tokens_file is None:
        raise ValueError("KITH_AUTH_TOKENS_FILE is required when KITH_AUTH_MODE=tokens")
    return TokenAuthenticator.from_file(settings.tokens_file)
