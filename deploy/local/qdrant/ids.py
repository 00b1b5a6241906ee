"""Point ids: unsigned 64-bit numbers or UUIDs, both ways."""

from __future__ import annotations

from uuid import UUID

from qdrant_client import grpc as proto

from deploy.local.qdrant.errors import InvalidRequest

PointId = int | UUID


def read_point_id(message: proto.PointId) -> PointId:
    """The id as a number or a UUID.

    Raises:
        InvalidRequest: it is neither.
    """
    match message.WhichOneof("point_id_options"):
        case "num":
            return message.num
        case "uuid":
            try:
                return UUID(message.uuid)
            except ValueError as error:
                raise InvalidRequest(f"{message.uuid!r} is not a UUID") from error
        case _:
            raise InvalidRequest("a point id is empty")


def write_point_id(point_id: int | UUID | str) -> proto.PointId:
    """The id as a message; UUIDs in their canonical form with hyphens."""
    return proto.PointId(num=point_id) if isinstance(point_id, int) else proto.PointId(uuid=str(point_id))
