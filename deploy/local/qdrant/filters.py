"""Filters, order and payload paths: from Qdrant's messages to the engine's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import qdrant_edge as edge
from qdrant_client import grpc as proto

from deploy.local.qdrant.errors import InvalidRequest, Unsupported
from deploy.local.qdrant.ids import read_point_id

if TYPE_CHECKING:
    from qdrant_edge import ConditionType, MatchType

_BOUNDS = ("lt", "gt", "gte", "lte")


def read_path(key: str) -> str:
    """The payload path `key`, checked by the engine's own parser.

    Raises:
        InvalidRequest: it is not a path.
    """
    try:
        edge.IsEmptyCondition(key)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
    return key


def read_filter(message: proto.Filter) -> edge.Filter:
    """The engine's filter.

    Raises:
        InvalidRequest: a path or an id cannot be read, or a condition is empty.
        Unsupported: geo, full-text and slice conditions.
    """
    min_should = None
    if message.HasField("min_should"):
        conditions = _read_conditions(message.min_should.conditions) or []
        min_should = edge.MinShould(conditions, message.min_should.min_count)
    return edge.Filter(
        must=_read_conditions(message.must),
        should=_read_conditions(message.should),
        must_not=_read_conditions(message.must_not),
        min_should=min_should,
    )


def read_optional_filter(request: Any, field: str = "filter") -> edge.Filter | None:
    """The filter in `field` of `request`, None where it is not set. Raises as `read_filter` does."""
    return read_filter(getattr(request, field)) if request.HasField(field) else None


def read_order(message: proto.OrderBy) -> edge.OrderBy:
    """The engine's order. Direction is ascending unless set.

    Raises:
        InvalidRequest: the key is not a path, or the start is text that is not a time.
    """
    start: int | float | str | None = None
    kind = message.start_from.WhichOneof("value") if message.HasField("start_from") else None
    if kind == "timestamp":
        start = message.start_from.timestamp.ToJsonString()
    elif kind is not None:
        start = getattr(message.start_from, kind)
    descending = message.HasField("direction") and message.direction == proto.Desc
    direction = edge.Direction.Desc if descending else edge.Direction.Asc
    try:
        return edge.OrderBy(read_path(message.key), direction, start)
    except ValueError as error:
        raise InvalidRequest(f"an order cannot start from {start!r}: {error}") from error


def _read_conditions(messages: Any) -> list[ConditionType] | None:
    # The engine takes an empty `should` as "nothing may match", a server as "not given".
    return [_read_condition(message) for message in messages] or None


def _read_condition(message: proto.Condition) -> ConditionType:
    match message.WhichOneof("condition_one_of"):
        case "field":
            return _read_field_condition(message.field)
        case "filter":
            return read_filter(message.filter)
        case "is_empty":
            return edge.IsEmptyCondition(read_path(message.is_empty.key))
        case "is_null":
            return edge.IsNullCondition(read_path(message.is_null.key))
        case "has_id":
            return edge.HasIdCondition({read_point_id(each) for each in message.has_id.has_id})
        case "has_vector":
            return edge.HasVectorCondition(message.has_vector.has_vector)
        case "nested":
            return edge.NestedCondition(read_path(message.nested.key), read_filter(message.nested.filter))
        case None:
            raise InvalidRequest("a condition of the filter is empty")
        case other:
            raise Unsupported(f"condition {other}")


def _read_field_condition(message: proto.FieldCondition) -> edge.FieldCondition:
    tests: dict[str, Any] = {}
    for field, _ in message.ListFields():
        match field.name:
            case "key":
                pass
            case "match":
                tests["match"] = _read_match(message.match)
            case "range":
                tests["range"] = edge.RangeFloat(**_read_bounds(message.range))
            case "datetime_range":
                bounds = _read_bounds(message.datetime_range)
                tests["range"] = edge.RangeDateTime(**{name: at.ToJsonString() for name, at in bounds.items()})
            case "values_count":
                tests["values_count"] = edge.ValuesCount(**_read_bounds(message.values_count))
            case "is_empty":
                tests["is_empty"] = message.is_empty
            case "is_null":
                tests["is_null"] = message.is_null
            case other:
                raise Unsupported(f"condition {other}")
    if not tests:
        raise InvalidRequest(f"the condition on `{message.key}` tests nothing")
    return edge.FieldCondition(read_path(message.key), **tests)


def _read_bounds(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in _BOUNDS if message.HasField(name)}


def _read_match(message: proto.Match) -> MatchType:
    match message.WhichOneof("match_value"):
        case "boolean":
            # The engine reads a plain True as the integer 1, which matches nothing.
            return edge.MatchValue(cast(bool, np.bool_(message.boolean)))
        case "keyword":
            return edge.MatchValue(message.keyword)
        case "integer":
            return edge.MatchValue(message.integer)
        case "keywords":
            return edge.MatchAny(list(message.keywords.strings))
        case "integers":
            return edge.MatchAny(list(message.integers.integers))
        case "except_keywords":
            return edge.MatchExcept(list(message.except_keywords.strings))
        case "except_integers":
            return edge.MatchExcept(list(message.except_integers.integers))
        case None:
            raise InvalidRequest("a match condition has no value")
        case other:
            raise Unsupported(f"match {other}")
