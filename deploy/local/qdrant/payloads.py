"""Payloads, selectors and points found: between Qdrant's messages and the engine's objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as proto

from deploy.local.qdrant.errors import InvalidRequest
from deploy.local.qdrant.filters import read_path
from deploy.local.qdrant.ids import write_point_id
from deploy.local.qdrant.vectors import VectorShape, check_name, write_vectors


def read_payload(fields: Mapping[str, proto.Value]) -> dict[str, Any]:
    """A payload as plain JSON values.

    Raises:
        InvalidRequest: a number is not finite, which JSON cannot hold.
    """
    return {key: _read_value(value) for key, value in fields.items()}


def _read_value(value: proto.Value) -> Any:
    match value.WhichOneof("kind"):
        case None | "null_value":
            return None
        case "struct_value":
            return read_payload(value.struct_value.fields)
        case "list_value":
            return [_read_value(each) for each in value.list_value.values]
        case "double_value":
            if not math.isfinite(value.double_value):
                raise InvalidRequest("a payload has a number that is not finite")
            return value.double_value
        case kind:
            return getattr(value, kind)


def write_payload(payload: Mapping[str, Any] | None) -> dict[str, proto.Value]:
    """A payload as messages; empty where there is none."""
    return {key: _write_value(value) for key, value in (payload or {}).items()}


def _write_value(value: Any) -> proto.Value:
    match value:
        case None:
            return proto.Value(null_value=proto.NULL_VALUE)
        case bool():  # before int, which bool is as well
            return proto.Value(bool_value=value)
        case int():
            return proto.Value(integer_value=value)
        case float():
            return proto.Value(double_value=value)
        case str():
            return proto.Value(string_value=value)
        case dict():
            return proto.Value(struct_value=proto.Struct(fields=write_payload(value)))
        case list():
            return proto.Value(list_value=proto.ListValue(values=[_write_value(each) for each in value]))
        case _:
            raise TypeError(f"the engine gave a payload value of type {type(value).__name__}")


def read_payload_selector(message: proto.WithPayloadSelector) -> bool | edge.PayloadSelector:
    """Which payload fields to return.

    Raises:
        InvalidRequest: a field is not a path.
    """
    match message.WhichOneof("selector_options"):
        case "include":
            return edge.PayloadSelector.Include([read_path(key) for key in message.include.fields])
        case "exclude":
            return edge.PayloadSelector.Exclude([read_path(key) for key in message.exclude.fields])
        case _:
            return message.enable


def read_vector_selector(message: proto.WithVectorsSelector, shapes: Mapping[str, VectorShape]) -> bool | list[str]:
    """Which vectors to return: all, none, or those named.

    Raises:
        InvalidRequest: the collection has no vector of that name.
    """
    if message.WhichOneof("selector_options") == "include":
        return [check_name(shapes, name) for name in message.include.names]
    return message.enable


def write_record(record: edge.Record) -> proto.RetrievedPoint:
    """A point that was fetched or scrolled to."""
    return proto.RetrievedPoint(
        id=write_point_id(record.id),
        payload=write_payload(record.payload),
        vectors=write_vectors(record.vector),
        order_value=_write_order_value(record.order_value),
    )


def write_scored_point(point: edge.ScoredPoint) -> proto.ScoredPoint:
    """A point that a query found."""
    return proto.ScoredPoint(
        id=write_point_id(point.id),
        payload=write_payload(point.payload),
        score=point.score,
        version=point.version,
        vectors=write_vectors(point.vector),
        order_value=_write_order_value(point.order_value),
    )


def _write_order_value(value: int | float | None) -> proto.OrderValue | None:
    if value is None:
        return None
    return proto.OrderValue(int=value) if isinstance(value, int) else proto.OrderValue(float=value)


def write_facet_value(value: Any) -> proto.FacetValue:
    """The value of a facet: boolean, integer, or text (keywords and UUIDs)."""
    match value:
        case bool():  # before int, which bool is as well
            return proto.FacetValue(bool_value=value)
        case int():
            return proto.FacetValue(integer_value=value)
        case _:
            return proto.FacetValue(string_value=str(value))
