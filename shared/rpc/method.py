"""The name and the kind of a remote procedure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

# Asked by probes and tools, not by clients: they need no token, no room and no log line.
INFRASTRUCTURE = frozenset(
    {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.reflection.v1.ServerReflection",
    }
)


@dataclass(frozen=True, slots=True)
class Method:
    """``/kith.persons.v1.PersonService/GetPerson``, taken apart."""

    service: str
    name: str
    is_infrastructure: bool = field(init=False, compare=False)
    """Health and reflection."""

    def __post_init__(self) -> None:
        # Asked several times per call.
        object.__setattr__(self, "is_infrastructure", self.service in INFRASTRUCTURE)

    @classmethod
    def parse(cls, path: str) -> Method:
        """From the path gRPC hands over."""
        service, _, name = path.lstrip("/").rpartition("/")
        return cls(service, name)

    def __str__(self) -> str:
        return f"{self.service}/{self.name}"


class RpcKind(Enum):
    """(request is a stream, response is a stream)."""

    UNARY_UNARY = (False, False)
    UNARY_STREAM = (False, True)
    STREAM_UNARY = (True, False)
    STREAM_STREAM = (True, True)

    @property
    def request_streaming(self) -> bool:
        """Many messages come from the caller."""
        return self._value_[0]

    @property
    def response_streaming(self) -> bool:
        """Many messages go to the caller."""
        return self._value_[1]
