"""Kith's errors on the wire: google.rpc.Status in both directions.

Out: every error carries ErrorInfo (``reason``, domain ``kith``) and RequestInfo, BadRequest if fields are wrong, RetryInfo
if it is worth coming back. In: an error of another Kith service becomes the same class again, so it passes through a
service unchanged. Details travel in trailing metadata, whose size HTTP/2 peers limit (8 KiB), so they are kept short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from shared.errors import (
    AlreadyExists,
    Code,
    Contention,
    DeadlineTooShort,
    EtagMismatch,
    FieldViolation,
    ImageUnreadable,
    InvalidRequest,
    KithError,
    NotFound,
    NotImplementedYet,
    Overloaded,
    PermissionDenied,
    PreconditionFailed,
    Reason,
    Unauthenticated,
    Unavailable,
)

DOMAIN: Final = "kith"
DETAILS_KEY: Final = "grpc-status-details-bin"
MAX_MESSAGE: Final = 512
MAX_DETAILS_BYTES: Final = 4096

# The first of a code is the one an unknown reason of that code becomes.
_CLASSES: Final[tuple[type[KithError], ...]] = (
    InvalidRequest,
    ImageUnreadable,
    NotFound,
    AlreadyExists,
    PreconditionFailed,
    Contention,
    EtagMismatch,
    PermissionDenied,
    Unauthenticated,
    Overloaded,
    DeadlineTooShort,
    Unavailable,
    NotImplementedYet,
    KithError,
)


def status_code(code: Code) -> grpc.StatusCode:
    """gRPC's constant for ``code``."""
    return grpc.StatusCode[code.value]


def to_status(error: KithError, request_id: str | None = None) -> status_pb2.Status:
    """``error`` as a caller sees it. Field violations that do not fit are counted in ErrorInfo ``omitted_violations``."""
    message = clip(error.message)
    violations = [
        error_details_pb2.BadRequest.FieldViolation(
            field=clip(item.field, 128), description=clip(item.description, 256)
        )
        for item in error.violations
    ]
    kept = len(violations)
    while True:
        status = _pack(error, message, violations[:kept], len(violations) - kept, request_id)
        if kept == 0 or status.ByteSize() <= MAX_DETAILS_BYTES:
            return status
        kept //= 2


def _pack(
    error: KithError,
    message: str,
    violations: list[error_details_pb2.BadRequest.FieldViolation],
    omitted: int,
    request_id: str | None,
) -> status_pb2.Status:
    metadata = {key: clip(value, 256) for key, value in error.metadata.items()}
    if omitted:
        metadata["omitted_violations"] = str(omitted)
    status = status_pb2.Status(code=status_code(error.code).value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata))
    if violations:
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        status.details.add().Pack(retry)
    if request_id is not None:
        status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    return status


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    """``text``, at most ``limit`` characters long."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def details_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The google.rpc.Status that came with ``error``, if one did."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def from_status(status: status_pb2.Status) -> KithError | None:
    """The error another Kith service raised, of the same class; ``None`` if ``status`` is not from Kith."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_info = error_details_pb2.RetryInfo()
            detail.Unpack(retry_info)
            retry = retry_info.retry_delay.ToNanoseconds() / 1e9
        elif not detail.Unpack(info):
            detail.Unpack(bad_request)
    if info.domain != DOMAIN:
        return None
    code = Code(_status_code_of(status.code).name)
    reason = Reason(info.reason) if info.reason in Reason.__members__ else None
    return _rebuild(
        _class_for(code, reason),
        status.message,
        reason=reason,
        metadata=dict(info.metadata),
        violations=[FieldViolation(item.field, item.description) for item in bad_request.field_violations],
        retry_after_s=retry,
    )


def from_rpc_error(error: grpc.aio.AioRpcError, *, service: str) -> KithError:
    """What a failed call to the Kith service ``service`` means for the caller of this one.

    Its own typed error if it sent one; else, by status: not reachable is SERVICE_UNAVAILABLE, too late is
    DEADLINE_EXCEEDED, and what nobody expects is INTERNAL without the other side's words.
    """
    status = details_of(error)
    typed = from_status(status) if status is not None else None
    if typed is not None:
        return typed
    where = {"service": service}
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unavailable(
                f"the {service} service does not answer",
                reason=Reason.SERVICE_UNAVAILABLE,
                metadata=where,
                retry_after_s=1.0,
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineTooShort(f"the {service} service did not answer in time", metadata=where)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded(f"the {service} service refused a call", metadata=where, retry_after_s=1.0)
        case grpc.StatusCode.UNIMPLEMENTED:
            return NotImplementedYet(f"the {service} service does not have this call", metadata=where)
        case code:
            return KithError(f"the {service} service failed with {code.name}", metadata=where)


def _status_code_of(number: int) -> grpc.StatusCode:
    return next((code for code in grpc.StatusCode if code.value[0] == number), grpc.StatusCode.INTERNAL)


def _class_for(code: Code, reason: Reason | None) -> type[KithError]:
    same_code = [cls for cls in _CLASSES if cls.code is code]
    return next((cls for cls in same_code if cls.reason is reason), same_code[0])


def _rebuild(
    cls: type[KithError],
    message: str,
    *,
    reason: Reason | None,
    metadata: Mapping[str, str],
    violations: Iterable[FieldViolation],
    retry_after_s: float | None,
) -> KithError:
    """An instance with exactly these parts; the subclasses' own constructors would compose another message."""
    error = cls.__new__(cls)
    KithError.__init__(
        error,
        message,
        reason=reason,
        metadata=metadata,
        violations=tuple(violations),
        retry_after_s=retry_after_s,
    )
    return error
