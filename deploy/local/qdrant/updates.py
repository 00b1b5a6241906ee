"""Writing points: every update a service may ask for, alone or in a batch.

A single call and the same update inside `UpdateBatch` are different messages with the same fields, so each
update is written once, over the fields. Everything in an update is read and checked before it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge
from google.protobuf.message import Message
from qdrant_client import grpc as proto

from deploy.local.qdrant.collection import Collection, missing_point
from deploy.local.qdrant.errors import InvalidRequest, Unsupported, accept_only
from deploy.local.qdrant.filters import read_filter, read_optional_filter, read_path
from deploy.local.qdrant.ids import PointId, read_point_id
from deploy.local.qdrant.indices import read_index
from deploy.local.qdrant.payloads import read_payload
from deploy.local.qdrant.vectors import check_name, read_vectors

Update = Callable[[Collection, Any], proto.UpdateResult]
_Operation = edge.UpdateOperation

_CALL = {"collection_name", "wait", "ordering", "timeout"}
"""Fields of every call. `wait`, `ordering` and `timeout` need nothing: updates are done when answered."""

_UPDATE_MODES = {
    proto.Upsert: edge.UpdateMode.Upsert,
    proto.InsertOnly: edge.UpdateMode.InsertOnly,
    proto.UpdateOnly: edge.UpdateMode.UpdateOnly,
}


def upsert(collection: Collection, message: Any) -> proto.UpdateResult:
    """Insert points, or replace them as a whole: vectors not given are removed.

    With `update_filter`, a point that exists is replaced only if it matches the filter as it is now, and a
    point that does not exist is inserted whatever the filter says; points that do not match are left alone
    without an error. This is what a Qdrant server does. `field < x` does not match a point without the field.

    Raises:
        InvalidRequest: an id, a vector or a payload cannot be stored; no point has been written then.
    """
    accept_only(message, _CALL | {"points", "update_filter", "update_mode"})
    points = [
        edge.Point(
            read_point_id(point.id),
            read_vectors(point.vectors, collection.shapes),
            read_payload(point.payload),
        )
        for point in message.points
    ]
    condition = read_optional_filter(message, "update_filter")
    return collection.write(_Operation.upsert_points(points, condition, _UPDATE_MODES[message.update_mode]))


def update_vectors(collection: Collection, message: Any) -> proto.UpdateResult:
    """Replace the vectors given, on points that exist. With `update_filter`, only on those that match it.

    Raises:
        InvalidRequest: a vector cannot be stored; nothing has been written then.
        NotFound: a point is missing; the others have been written.
    """
    accept_only(message, _CALL | {"points", "update_filter"})
    vectors = {read_point_id(point.id): read_vectors(point.vectors, collection.shapes) for point in message.points}
    condition = read_optional_filter(message, "update_filter")
    return _write_present(
        collection,
        list(vectors),
        lambda ids: _Operation.update_vectors([edge.PointVectors(each, vectors[each]) for each in ids], condition),
    )


def delete_vectors(collection: Collection, message: Any) -> proto.UpdateResult:
    """Remove vectors by name and keep the points. Raises InvalidRequest, NotFound."""
    accept_only(message, _CALL | {"points_selector", "vectors"})
    names = [check_name(collection.shapes, name) for name in message.vectors.names]
    return _write_selected(
        collection,
        message.points_selector,
        lambda ids: _Operation.delete_vectors(ids, names),
        lambda matching: _Operation.delete_vectors_by_filter(matching, names),
    )


def set_payload(collection: Collection, message: Any) -> proto.UpdateResult:
    """Set fields and keep the others, at the top or under the path `key`. Raises InvalidRequest, NotFound."""
    accept_only(message, _CALL | {"payload", "points_selector", "key"})
    payload, key = read_payload(message.payload), _read_key(message)
    return _write_selected(
        collection,
        message.points_selector,
        lambda ids: _Operation.set_payload(ids, payload, key),
        lambda matching: _Operation.set_payload_by_filter(matching, payload, key),
    )


def overwrite_payload(collection: Collection, message: Any) -> proto.UpdateResult:
    """Replace the whole payload. Raises InvalidRequest, NotFound."""
    accept_only(message, _CALL | {"payload", "points_selector"})
    payload = read_payload(message.payload)
    return _write_selected(
        collection,
        message.points_selector,
        lambda ids: _Operation.overwrite_payload(ids, payload),
        lambda matching: _Operation.overwrite_payload_by_filter(matching, payload),
    )


def delete_payload(collection: Collection, message: Any) -> proto.UpdateResult:
    """Remove fields by path. Raises InvalidRequest, NotFound."""
    accept_only(message, _CALL | {"keys", "points_selector"})
    keys = [read_path(key) for key in message.keys]
    return _write_selected(
        collection,
        message.points_selector,
        lambda ids: _Operation.delete_payload(ids, keys),
        lambda matching: _Operation.delete_payload_by_filter(matching, keys),
    )


def clear_payload(collection: Collection, message: Any) -> proto.UpdateResult:
    """Remove the whole payload. Raises InvalidRequest, NotFound."""
    accept_only(message, _CALL | {"points"})
    return _write_selected(collection, message.points, _Operation.clear_payload, _Operation.clear_payload_by_filter)


def delete_points(collection: Collection, message: Any) -> proto.UpdateResult:
    """Remove points. Ids that are not there are no error. Raises InvalidRequest."""
    accept_only(message, _CALL | {"points"})
    match _selector_kind(message.points):
        case "filter":
            return collection.write(_Operation.delete_points_by_filter(read_filter(message.points.filter)))
        case _:
            ids = [read_point_id(each) for each in message.points.points.ids]
            return collection.write(_Operation.delete_points(list(ids)))


def create_index(collection: Collection, message: proto.CreateFieldIndexCollection) -> proto.UpdateResult:
    """Index a payload field, also one indexed by another type. Raises InvalidRequest, Unsupported."""
    accept_only(message, _CALL | {"field_name", "field_type", "field_index_params"})
    return collection.write(_Operation.create_field_index(read_path(message.field_name), read_index(message)))


def delete_index(collection: Collection, message: proto.DeleteFieldIndexCollection) -> proto.UpdateResult:
    """Remove the index of a payload field, if it has one. Raises InvalidRequest."""
    accept_only(message, _CALL | {"field_name"})
    return collection.write(_Operation.delete_field_index(read_path(message.field_name)))


BATCHED: dict[str, Update] = {
    "upsert": upsert,
    "update_vectors": update_vectors,
    "delete_vectors": delete_vectors,
    "set_payload": set_payload,
    "overwrite_payload": overwrite_payload,
    "delete_payload": delete_payload,
    "clear_payload": clear_payload,
    "delete_points": delete_points,
}
"""Updates by their name inside `UpdateBatch`."""


def update_batch(collection: Collection, message: proto.UpdateBatchPoints) -> list[proto.UpdateResult]:
    """Apply operations in order. As on a server, the first that fails ends the batch and earlier ones stay.

    Raises:
        Unsupported: an operation is not known; nothing has been written then.
        InvalidRequest, NotFound: as the operation does.
    """
    accept_only(message, _CALL | {"operations"})
    steps: list[tuple[Update, Message]] = []
    for operation in message.operations:
        kind = operation.WhichOneof("operation")
        if kind is None:
            raise InvalidRequest("an operation of the batch is empty")
        if kind not in BATCHED:
            raise Unsupported(f"batch operation {kind}")
        steps.append((BATCHED[kind], getattr(operation, kind)))
    return [update(collection, step) for update, step in steps]


def _read_key(message: Any) -> str | None:
    return read_path(message.key) if message.HasField("key") else None


def _selector_kind(selector: proto.PointsSelector) -> str:
    kind = selector.WhichOneof("points_selector_one_of")
    if kind is None:
        raise InvalidRequest("the request selects no points")
    return kind


def _write_selected(
    collection: Collection,
    selector: proto.PointsSelector,
    by_ids: Callable[[list[Any]], edge.UpdateOperation],
    by_filter: Callable[[edge.Filter], edge.UpdateOperation],
) -> proto.UpdateResult:
    if _selector_kind(selector) == "filter":
        return collection.write(by_filter(read_filter(selector.filter)))
    return _write_present(collection, [read_point_id(each) for each in selector.points.ids], by_ids)


def _write_present(
    collection: Collection, ids: list[PointId], operation: Callable[[list[Any]], edge.UpdateOperation]
) -> proto.UpdateResult:
    """Write to the points that are there, then report the first that is not, as a server does."""
    present, missing = collection.split_present(ids)
    result = collection.write(operation(present))
    if missing:
        raise missing_point(missing[0])
    return result
