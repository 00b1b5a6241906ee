"""Dense vectors: from messages to the engine, checked; and back.

The engine stores a NaN and a zero vector under cosine without a word, and both poison every later search.
Everything is checked here before the engine sees it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import grpc as proto

from deploy.local.qdrant.errors import InvalidRequest, Unsupported, accept_only

if TYPE_CHECKING:
    from qdrant_edge import Vector

_DISTANCES = {
    proto.Cosine: edge.Distance.Cosine,
    proto.Euclid: edge.Distance.Euclid,
    proto.Dot: edge.Distance.Dot,
    proto.Manhattan: edge.Distance.Manhattan,
}
_DATATYPES = {
    proto.Default: edge.VectorStorageDatatype.Float32,
    proto.Float32: edge.VectorStorageDatatype.Float32,
    proto.Float16: edge.VectorStorageDatatype.Float16,
}
_SHAPE_FIELDS = {"size", "distance", "hnsw_config", "quantization_config", "on_disk", "datatype", "memory"}
_ONLY_VECTOR = ""

LARGEST_SIZE = 65_536
"""Most elements of a vector, as on a server."""


@dataclass(frozen=True, slots=True)
class VectorShape:
    """What a vector of one name must be: `size` elements, compared by `distance`, stored as `datatype`."""

    size: int
    distance: edge.Distance
    datatype: edge.VectorStorageDatatype

    def params(self) -> edge.EdgeVectorParams:
        """The engine's description of the shape."""
        return edge.EdgeVectorParams(size=self.size, distance=self.distance, datatype=self.datatype)


def read_shapes(config: proto.VectorsConfig) -> dict[str, VectorShape]:
    """The shapes of a collection by name; the only vector of an unnamed collection has the name "".

    Raises:
        InvalidRequest: no vector, a size out of bounds, or an unknown distance.
        Unsupported: multivectors and datatypes other than float32 and float16.
    """
    match config.WhichOneof("config"):
        case "params":
            return {_ONLY_VECTOR: _read_shape(config.params)}
        case "params_map" if config.params_map.map:
            return {name: _read_shape(params) for name, params in config.params_map.map.items()}
        case _:
            raise InvalidRequest("a collection needs at least one dense vector")


def _read_shape(params: proto.VectorParams) -> VectorShape:
    accept_only(params, _SHAPE_FIELDS)
    if not 1 <= params.size <= LARGEST_SIZE:
        raise InvalidRequest(f"the size of a vector must be from 1 to {LARGEST_SIZE}")
    if params.distance not in _DISTANCES:
        raise InvalidRequest("a vector needs a distance")
    if params.datatype not in _DATATYPES:
        raise Unsupported(f"datatype {proto.Datatype.Name(params.datatype)}")
    return VectorShape(params.size, _DISTANCES[params.distance], _DATATYPES[params.datatype])


def read_dense(message: proto.Vector | proto.VectorInput) -> list[float]:
    """The elements of a dense vector, unchecked.

    Raises:
        Unsupported: sparse vectors, multivectors and anything that asks the server to embed.
    """
    if isinstance(message, proto.Vector):
        accept_only(message, {"data", "dense"})
        return list(message.dense.data) if message.WhichOneof("vector") == "dense" else list(message.data)
    kind = message.WhichOneof("variant")
    if kind != "dense":
        raise Unsupported(f"vector {kind}")
    return list(message.dense.data)


def check_name(shapes: Mapping[str, VectorShape], name: str) -> str:
    """`name`, if the collection has a vector of that name.

    Raises:
        InvalidRequest: it has none.
    """
    if name not in shapes:
        raise InvalidRequest(f"Not existing vector name error: {name}; there are {sorted(shapes)}")
    return name


def check_vector(shapes: Mapping[str, VectorShape], name: str, values: list[float]) -> None:
    """Refuse a vector that the collection cannot hold or compare.

    Raises:
        InvalidRequest: unknown name, wrong size, an element that is not finite, or all zeros where the
            distance is cosine.
    """
    shape = shapes[check_name(shapes, name)]
    if len(values) != shape.size:
        raise InvalidRequest(f"Vector dimension error: expected dim: {shape.size}, got {len(values)}")
    array = np.asarray(values, dtype=np.float64)
    square = float(array @ array)
    if not math.isfinite(square):
        raise InvalidRequest("a vector has an element that is not a finite number")
    if square == 0.0 and shape.distance is edge.Distance.Cosine:
        raise InvalidRequest("a vector of zeros has no direction and cannot be compared by cosine")


def read_vectors(message: proto.Vectors, shapes: Mapping[str, VectorShape]) -> list[float] | dict[str, Any]:
    """The checked vectors of one point: the only one, or by name. Empty where the point has none.

    Raises:
        InvalidRequest, Unsupported: as `check_vector` and `read_dense` do.
    """
    if message.WhichOneof("vectors_options") == "vector":
        values = read_dense(message.vector)
        check_vector(shapes, _ONLY_VECTOR, values)
        return values
    named: dict[str, Any] = {}
    for name, vector in message.vectors.vectors.items():
        named[name] = read_dense(vector)
        check_vector(shapes, name, named[name])
    return named


def write_vectors(vector: Vector | None) -> proto.VectorsOutput | None:
    """The engine's vector or vectors of a point as a message."""
    if vector is None:
        return None
    if isinstance(vector, dict):
        named = {name: _write_vector(values) for name, values in vector.items()}
        return proto.VectorsOutput(vectors=proto.NamedVectorsOutput(vectors=named))
    return proto.VectorsOutput(vector=_write_vector(vector))


def _write_vector(values: Any) -> proto.VectorOutput:
    return proto.VectorOutput(dense=proto.DenseVector(data=values))
