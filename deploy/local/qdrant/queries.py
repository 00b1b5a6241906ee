"""Queries: what `Query` and `QueryBatch` ask for, in the engine's terms.

Search is exact, so `params` are accepted and say nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import grpc as proto

from deploy.local.qdrant.collection import Collection, check_page, missing_point
from deploy.local.qdrant.errors import InvalidRequest, Unsupported, accept_only
from deploy.local.qdrant.filters import read_optional_filter, read_order
from deploy.local.qdrant.ids import PointId, read_point_id
from deploy.local.qdrant.payloads import read_payload_selector, read_vector_selector
from deploy.local.qdrant.vectors import check_name, check_vector, read_dense

_FIELDS = {
    "collection_name",
    "query",
    "using",
    "filter",
    "params",
    "score_threshold",
    "limit",
    "offset",
    "with_vectors",
    "with_payload",
    "read_consistency",
    "timeout",
}
_DEFAULT_LIMIT = 10


def read_query(collection: Collection, request: proto.QueryPoints) -> edge.QueryRequest:
    """The engine's query. Without a query, the points by id.

    Points given as examples by id are not in the result.

    Raises:
        InvalidRequest: a vector, a path or a page cannot be used.
        NotFound: an example is missing.
        Unsupported: prefetch, and kinds of query other than nearest, recommend, order_by and sample.
    """
    accept_only(request, _FIELDS)
    limit = request.limit if request.HasField("limit") else _DEFAULT_LIMIT
    check_page(limit + request.offset, "limit and offset")
    examples = _Examples(collection, request.using)
    query = _read_scoring(request.query, examples) if request.HasField("query") else None
    chosen = read_optional_filter(request)
    if examples.ids:
        not_examples = edge.HasIdCondition(set(examples.ids))
        chosen = edge.Filter(must=[chosen] if chosen else None, must_not=[not_examples])
    return edge.QueryRequest(
        limit=limit,
        offset=request.offset,
        query=query,
        filter=chosen,
        score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
        with_payload=read_payload_selector(request.with_payload),
        with_vector=read_vector_selector(request.with_vectors, collection.shapes),
    )


class _Examples:
    """Reads the vectors of a query, given as they are or as ids of points, and remembers the ids."""

    def __init__(self, collection: Collection, using: str) -> None:
        self.collection = collection
        self.using = using
        self.ids: set[PointId] = set()

    def read(self, message: proto.VectorInput) -> list[float]:
        if message.WhichOneof("variant") == "id":
            return self._stored(read_point_id(message.id))
        values = read_dense(message)
        check_vector(self.collection.shapes, self.using, values)
        return values

    def _stored(self, point_id: PointId) -> list[float]:
        check_name(self.collection.shapes, self.using)
        records = self.collection.shard.retrieve([point_id], False, True)
        if not records:
            raise missing_point(point_id)
        self.ids.add(point_id)
        stored: Any = records[0].vector
        values: list[float] | None = stored.get(self.using) if isinstance(stored, dict) else stored
        if values is None:
            raise InvalidRequest(f"point {point_id} has no vector `{self.using}`")
        return values


def _read_scoring(message: proto.Query, examples: _Examples) -> Any:
    using = examples.using or None
    match message.WhichOneof("variant"):
        case "nearest":
            return edge.Query.Nearest(examples.read(message.nearest), using)
        case "recommend":
            return _read_recommend(message.recommend, examples, using)
        case "order_by":
            examples.collection.check_order(message.order_by.key)
            return read_order(message.order_by)
        case "sample":
            return edge.Sample.Random
        case None:
            raise InvalidRequest("the query is empty")
        case other:
            raise Unsupported(f"query {other}")


def _read_recommend(message: proto.RecommendInput, examples: _Examples, using: str | None) -> edge.Query:
    positive = [examples.read(each) for each in message.positive]
    negative = [examples.read(each) for each in message.negative]
    if message.strategy != proto.AverageVector:
        if not positive and not negative:
            raise InvalidRequest("a recommendation needs at least one example")
        asked = edge.RecommendQuery([*positive], [*negative])
        if message.strategy == proto.BestScore:
            return edge.Query.RecommendBestScore(asked, using)
        return edge.Query.RecommendSumScores(asked, using)
    if not positive:
        raise InvalidRequest("a recommendation by average needs at least one positive example")
    # The engine leaves this strategy to its caller; a server searches by mean(positive) + (mean(positive) -
    # mean(negative)), https://qdrant.tech/documentation/concepts/explore/#average-vector-strategy
    average = np.mean(positive, axis=0)
    target = 2 * average - np.mean(negative, axis=0) if negative else average
    values = [float(value) for value in target]
    check_vector(examples.collection.shapes, examples.using, values)
    return edge.Query.Nearest(values, using)
