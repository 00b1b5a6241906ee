"""Qdrant's `Points` service: updates by table, and every way to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qdrant_edge as edge
from qdrant_client import grpc as proto

from deploy.local.qdrant import updates
from deploy.local.qdrant.catalogue import Catalogue
from deploy.local.qdrant.collection import check_page
from deploy.local.qdrant.errors import InvalidRequest, accept_only
from deploy.local.qdrant.filters import read_optional_filter, read_order, read_path
from deploy.local.qdrant.ids import read_point_id, write_point_id
from deploy.local.qdrant.payloads import (
    read_payload_selector,
    read_vector_selector,
    write_facet_value,
    write_record,
    write_scored_point,
)
from deploy.local.qdrant.queries import read_query
from deploy.local.qdrant.rpc import Method

_CALL = {"collection_name", "timeout", "read_consistency"}
_DEFAULT_LIMIT = 10


class PointsService:
    """The methods of `qdrant.Points` over a catalogue; each raises NotFound for an unknown collection."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def methods(self) -> Mapping[str, Method]:
        """The supported methods by their name in the protocol."""
        return {
            "Upsert": self._update(updates.upsert),
            "UpdateVectors": self._update(updates.update_vectors),
            "DeleteVectors": self._update(updates.delete_vectors),
            "SetPayload": self._update(updates.set_payload),
            "OverwritePayload": self._update(updates.overwrite_payload),
            "DeletePayload": self._update(updates.delete_payload),
            "ClearPayload": self._update(updates.clear_payload),
            "Delete": self._update(updates.delete_points),
            "CreateFieldIndex": self._update(updates.create_index),
            "DeleteFieldIndex": self._update(updates.delete_index),
            "UpdateBatch": self.update_batch,
            "Get": self.get,
            "Scroll": self.scroll,
            "Count": self.count,
            "Facet": self.facet,
            "Query": self.query,
            "QueryBatch": self.query_batch,
        }

    def _update(self, update: updates.Update) -> Method:
        def call(request: Any) -> proto.PointsOperationResponse:
            return proto.PointsOperationResponse(result=update(self._catalogue[request.collection_name], request))

        return call

    def update_batch(self, request: proto.UpdateBatchPoints) -> proto.UpdateBatchResponse:
        """Several updates in order. Raises as `updates.update_batch` does."""
        results = updates.update_batch(self._catalogue[request.collection_name], request)
        return proto.UpdateBatchResponse(result=results)

    def get(self, request: proto.GetPoints) -> proto.GetResponse:
        """Points by id, each once; ids that are not there are left out. Raises InvalidRequest."""
        accept_only(request, _CALL | {"ids", "with_payload", "with_vectors"})
        check_page(len(request.ids), "ids")
        collection = self._catalogue[request.collection_name]
        records = collection.shard.retrieve(
            [read_point_id(each) for each in request.ids],
            read_payload_selector(request.with_payload),
            read_vector_selector(request.with_vectors, collection.shapes),
        )
        return proto.GetResponse(result=[write_record(record) for record in records])

    def scroll(self, request: proto.ScrollPoints) -> proto.ScrollResponse:
        """One page of points by id, or the first by the order of a field.

        Raises:
            InvalidRequest: the page is too large, the order has no index, or has an offset beside it.
        """
        accept_only(request, _CALL | {"filter", "offset", "limit", "with_payload", "with_vectors", "order_by"})
        collection = self._catalogue[request.collection_name]
        limit = request.limit if request.HasField("limit") else _DEFAULT_LIMIT
        if limit < 1:
            raise InvalidRequest("the limit of a scroll must be at least 1")
        check_page(limit)
        order = None
        if request.HasField("order_by"):
            if request.HasField("offset"):
                raise InvalidRequest("a scroll by order starts from `start_from`, not from an offset")
            collection.check_order(request.order_by.key)
            order = read_order(request.order_by)
        records, following = collection.shard.scroll(
            edge.ScrollRequest(
                offset=read_point_id(request.offset) if request.HasField("offset") else None,
                limit=limit,
                filter=read_optional_filter(request),
                with_payload=read_payload_selector(request.with_payload),
                with_vector=read_vector_selector(request.with_vectors, collection.shapes),
                order_by=order,
            )
        )
        return proto.ScrollResponse(
            result=[write_record(record) for record in records],
            next_page_offset=None if following is None else write_point_id(following),
        )

    def count(self, request: proto.CountPoints) -> proto.CountResponse:
        """How many points match; exact, also where an estimate was allowed. Raises InvalidRequest."""
        accept_only(request, _CALL | {"filter", "exact"})
        shard = self._catalogue[request.collection_name].shard
        count = shard.count(edge.CountRequest(exact=True, filter=read_optional_filter(request)))
        return proto.CountResponse(result=proto.CountResult(count=count))

    def facet(self, request: proto.FacetCounts) -> proto.FacetResponse:
        """How many points have each value of an indexed field; values that no point has are left out.

        Raises:
            InvalidRequest: the field has no index by value.
        """
        accept_only(request, _CALL | {"key", "filter", "limit", "exact"})
        collection = self._catalogue[request.collection_name]
        limit = request.limit if request.HasField("limit") else _DEFAULT_LIMIT
        check_page(limit)
        collection.check_facet(read_path(request.key))
        found = collection.shard.facet(
            edge.FacetRequest(request.key, limit=limit, exact=True, filter=read_optional_filter(request))
        )
        # The engine keeps values in the index that no point has any more.
        hits = [proto.FacetHit(value=write_facet_value(hit.value), count=hit.count) for hit in found.hits if hit.count]
        return proto.FacetResponse(hits=hits)

    def query(self, request: proto.QueryPoints) -> proto.QueryResponse:
        """One query. Raises as `read_query` does."""
        collection = self._catalogue[request.collection_name]
        points = collection.shard.query(read_query(collection, request))
        return proto.QueryResponse(result=[write_scored_point(point) for point in points])

    def query_batch(self, request: proto.QueryBatchPoints) -> proto.QueryBatchResponse:
        """Several queries of one collection, planned together by the engine. Raises as `read_query` does."""
        accept_only(request, _CALL | {"query_points"})
        collection = self._catalogue[request.collection_name]
        queries = [read_query(collection, each) for each in request.query_points]
        results = collection.shard.query_batch(edge.QueryBatchRequest(queries)) if queries else []
        return proto.QueryBatchResponse(
            result=[proto.BatchResult(result=[write_scored_point(point) for point in points]) for points in results]
        )
