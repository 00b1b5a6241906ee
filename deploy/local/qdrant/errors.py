"""What the embedded Qdrant refuses, one type for each gRPC status.

The engine raises a bare `Exception` for everything, which cannot be told apart by type. So requests are
checked before the engine sees them, and whatever the engine still raises is a defect and is answered with
INTERNAL.
"""

from __future__ import annotations

from collections.abc import Collection

import grpc
from google.protobuf.message import Message


class Refusal(Exception):
    """A request that is answered with a status instead of a result."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL


class InvalidRequest(Refusal):
    """The request can never succeed as it is."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(Refusal):
    """A collection, alias or point that is not there."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Refusal):
    """A name that is taken."""

    code = grpc.StatusCode.ALREADY_EXISTS


class Unsupported(Refusal):
    """Something a Qdrant server can do and the embedded one cannot; the message names it."""

    code = grpc.StatusCode.UNIMPLEMENTED

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not supported by the embedded Qdrant; use a Qdrant server")


class StartupError(Exception):
    """The process cannot serve this data folder; the message says why and what to do."""


def accept_only(message: Message, fields: Collection[str]) -> None:
    """Refuse a message that sets any other field than `fields`.

    A list of what is accepted, not of what is refused: a field that a later protocol adds is refused by name
    instead of being silently ignored.

    Raises:
        Unsupported: naming the message and the field.
    """
    for field, _ in message.ListFields():
        if field.name not in fields:
            raise Unsupported(f"{message.DESCRIPTOR.name}.{field.name}")
