"""Payload indices: which types there are, their parameters both ways, and what each makes possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as proto

from deploy.local.qdrant.errors import InvalidRequest, Unsupported, accept_only


@dataclass(frozen=True, slots=True)
class IndexKind:
    """One type of index: its names in both worlds and the parameters that the engine knows by the same name.

    `memory` and `on_disk` say where an index is kept and do not change an answer: `on_disk` is passed on,
    `memory` accepted and left to the engine.
    """

    field_type: proto.FieldType.ValueType
    shown_as: proto.PayloadSchemaType.ValueType
    params_field: str
    engine_params: Any
    parameters: frozenset[str]
    facets: bool
    orders: bool


def _kind(name: str, parameters: set[str], *, facets: bool = False, orders: bool = False) -> IndexKind:
    return IndexKind(
        field_type=proto.FieldType.Value(f"FieldType{name}"),
        shown_as=proto.PayloadSchemaType.Value(name),
        params_field=f"{name.lower()}_index_params",
        engine_params=getattr(edge, f"{name}IndexParams"),
        parameters=frozenset(parameters | {"on_disk", "enable_hnsw"}),
        facets=facets,
        orders=orders,
    )


_KINDS = (
    _kind("Keyword", {"is_tenant"}, facets=True),
    _kind("Integer", {"lookup", "range", "is_principal"}, facets=True, orders=True),
    _kind("Float", {"is_principal"}, orders=True),
    _kind("Bool", set(), facets=True),
    _kind("Datetime", {"is_principal"}, orders=True),
    _kind("Uuid", {"is_tenant"}, facets=True),
)


def read_index(request: proto.CreateFieldIndexCollection) -> Any:
    """The engine's parameters for the index that `request` asks for. Without parameters, the type's defaults.

    Raises:
        InvalidRequest: neither a type nor parameters, or both and they disagree.
        Unsupported: geo and text indices, and parameters the engine is not given.
    """
    variant = request.field_index_params.WhichOneof("index_params") if request.HasField("field_index_params") else None
    if variant is None and not request.HasField("field_type"):
        raise InvalidRequest(f"the index on `{request.field_name}` has no type")
    for kind in _KINDS:
        of_type = request.HasField("field_type") and request.field_type == kind.field_type
        if variant is None and of_type:
            return kind.engine_params()
        if variant == kind.params_field:
            if request.HasField("field_type") and not of_type:
                raise InvalidRequest(f"type and parameters of the index on `{request.field_name}` disagree")
            params = getattr(request.field_index_params, variant)
            accept_only(params, kind.parameters | {"memory"})
            return kind.engine_params(
                **{f.name: value for f, value in params.ListFields() if f.name in kind.parameters}
            )
    raise Unsupported(f"index {variant or proto.FieldType.Name(request.field_type)}")


def write_index(info: edge.PayloadIndexInfo) -> proto.PayloadSchemaInfo:
    """What `Get` shows of an index."""
    kind = _kind_of(info)
    shown = proto.PayloadSchemaInfo(data_type=kind.shown_as, points=info.points)
    params = getattr(shown.params, kind.params_field)
    for name in kind.parameters:
        value = getattr(info.params, name, None)
        if value is not None:
            setattr(params, name, value)
    return shown


def check_can_facet(key: str, info: edge.PayloadIndexInfo | None) -> None:
    """Refuse to count the values of a field without an index by value.

    Raises:
        InvalidRequest: as a server does.
    """
    if info is None or not _kind_of(info).facets or getattr(info.params, "lookup", None) is False:
        raise InvalidRequest(f"No appropriate index for faceting: `{key}`. Please create one to facet on this field")


def check_can_order(key: str, info: edge.PayloadIndexInfo | None) -> None:
    """Refuse to order by a field without an index by range.

    Raises:
        InvalidRequest: as a server does.
    """
    if info is None or not _kind_of(info).orders or getattr(info.params, "range", None) is False:
        raise InvalidRequest(f"No range index for `order_by` key: `{key}`. Please create one to use `order_by`")


def _kind_of(info: edge.PayloadIndexInfo) -> IndexKind:
    for kind in _KINDS:
        if isinstance(info.params, kind.engine_params):
            return kind
    raise TypeError(f"the engine has an index of type {info.data_type}")
