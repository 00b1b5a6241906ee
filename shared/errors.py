"""The errors a caller may see. Each has one status and one reason; ``shared/rpc`` turns them into google.rpc.Status.

Anything that is not a :class:`KithError` reaches the caller as INTERNAL with a request id and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """gRPC status codes this house uses, by name, so that the domain needs no grpc."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAVAILABLE = "UNAVAILABLE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"


class Reason(StrEnum):
    """Mirror of ``kith.common.v1.ErrorReason`` (without its prefix); a test holds both equal."""

    INVALID_FIELD = "INVALID_FIELD"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    IMAGE_UNREADABLE = "IMAGE_UNREADABLE"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    URI_NOT_ALLOWED = "URI_NOT_ALLOWED"
    URI_UNREADABLE = "URI_UNREADABLE"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    ETAG_REQUIRED = "ETAG_REQUIRED"
    FACE_ALREADY_ASSIGNED = "FACE_ALREADY_ASSIGNED"
    FACE_NOT_ASSIGNED = "FACE_NOT_ASSIGNED"
    FACE_EXCLUDED = "FACE_EXCLUDED"
    FACE_NOT_ACTIVE = "FACE_NOT_ACTIVE"
    PERSON_NOT_ACTIVE = "PERSON_NOT_ACTIVE"
    SUGGESTION_NOT_PENDING = "SUGGESTION_NOT_PENDING"
    CLUSTER_CHANGED = "CLUSTER_CHANGED"
    JOB_STATE = "JOB_STATE"
    JOB_FAILED = "JOB_FAILED"
    MODEL_MISMATCH = "MODEL_MISMATCH"
    MEMORY_BUDGET = "MEMORY_BUDGET"
    LIBRARY_FORBIDDEN = "LIBRARY_FORBIDDEN"
    VERB_FORBIDDEN = "VERB_FORBIDDEN"
    TOKEN_INVALID = "TOKEN_INVALID"
    OVERLOADED = "OVERLOADED"
    DRAINING = "DRAINING"
    DEADLINE_TOO_SHORT = "DEADLINE_TOO_SHORT"
    LOCK_TIMEOUT = "LOCK_TIMEOUT"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    DETECTOR_CRASHED = "DETECTOR_CRASHED"
    MIGRATION_INCOMPLETE = "MIGRATION_INCOMPLETE"
    SAME_PHOTO_DOUBLE = "SAME_PHOTO_DOUBLE"
    BEFORE_BIRTH = "BEFORE_BIRTH"
    BIRTH_DATES_DIFFER = "BIRTH_DATES_DIFFER"
    CHANGE_NOT_UNDOABLE = "CHANGE_NOT_UNDOABLE"
    CHANGED_SINCE = "CHANGED_SINCE"
    TOO_FEW_FACES = "TOO_FEW_FACES"
    EMBEDDINGS_MISSING = "EMBEDDINGS_MISSING"
    RUN_REQUIRED = "RUN_REQUIRED"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request. ``field`` is a path such as ``assets[3].uri``."""

    field: str
    description: str


class KithError(Exception):
    """Something went wrong that the caller can be told about.

    ``metadata`` goes into ErrorInfo (documented per reason in ``errors.proto``); ``retry_after_s`` into RetryInfo.
    """

    code = Code.INTERNAL
    reason = Reason.INTERNAL_ERROR

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class InvalidRequest(KithError):
    """The request itself is wrong; sending it again will not help."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.INVALID_FIELD

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        reason: Reason | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        found = (FieldViolation(field, message),) if field and not violations else tuple(violations)
        super().__init__(message, reason=reason, metadata=metadata, violations=found)


class ImageUnreadable(InvalidRequest):
    """The bytes are not an image this house can read, or break one of its limits."""

    reason = Reason.IMAGE_UNREADABLE


class NotFound(KithError):
    """No such row in this library."""

    code = Code.NOT_FOUND
    reason = Reason.RESOURCE_NOT_FOUND

    def __init__(self, resource: str, identifier: str, *, violations: Sequence[FieldViolation] = ()) -> None:
        """``violations`` name every missing one, where a request named several."""
        metadata = {"resource": resource, "id": identifier}
        super().__init__(f"{resource} '{identifier}' not found", metadata=metadata, violations=violations)


class AnswerForgotten(NotFound):
    """What a call was answered before is about a person who was forgotten since: it is neither told again nor done again."""

    def __init__(self) -> None:
        # Who it was is not known any more.
        super().__init__("person", "")
        self.message = "this request was answered before, about a person who was forgotten since"
        self.args = (self.message,)


class AlreadyExists(KithError):
    """A row with that key is there already."""

    code = Code.ALREADY_EXISTS
    reason = Reason.RESOURCE_EXISTS


class PreconditionFailed(KithError):
    """The state of things forbids it; a human or another call must change that first."""

    code = Code.FAILED_PRECONDITION
    reason = Reason.JOB_STATE


class EtagMismatch(KithError):
    """Somebody changed the row since the caller read it: read again, decide again."""

    code = Code.ABORTED
    reason = Reason.ETAG_MISMATCH

    def __init__(self, resource: str, identifier: str, current: str) -> None:
        super().__init__(
            f"{resource} '{identifier}' has changed: its etag is now '{current}'",
            metadata={"resource": resource, "id": identifier, "current_etag": current},
        )


class Contention(KithError):
    """Another transaction held the row too long; the same call may be sent again."""

    code = Code.ABORTED
    reason = Reason.LOCK_TIMEOUT


class PermissionDenied(KithError):
    """The token does not allow it."""

    code = Code.PERMISSION_DENIED
    reason = Reason.LIBRARY_FORBIDDEN


class Unauthenticated(KithError):
    """No token, or one this server does not know."""

    code = Code.UNAUTHENTICATED
    reason = Reason.TOKEN_INVALID


class Overloaded(KithError):
    """Refused to protect the calls already admitted; ``retry_after_s`` says when to come back."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.OVERLOADED


class MemoryBudgetExceeded(KithError):
    """The work would need more memory than it may have; nothing of it was begun. Metadata: needed_mb, budget_mb."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.MEMORY_BUDGET


class DeadlineTooShort(KithError):
    """The time left cannot be, or was not, enough; metadata ``begun`` says whether anything was begun."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.DEADLINE_TOO_SHORT


class Unavailable(KithError):
    """A store or service Kith depends on does not answer now."""

    code = Code.UNAVAILABLE
    reason = Reason.STORE_UNAVAILABLE


class NotImplementedYet(KithError):
    """The contract has this call, this build does not."""

    code = Code.UNIMPLEMENTED
    reason = Reason.NOT_IMPLEMENTED
