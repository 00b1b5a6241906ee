"""One collection: an engine shard in a folder, and what must hold before it is written to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import qdrant_edge as edge
from qdrant_client import grpc as proto

from deploy.local.qdrant.errors import InvalidRequest, NotFound
from deploy.local.qdrant.ids import PointId
from deploy.local.qdrant.indices import check_can_facet, check_can_order
from deploy.local.qdrant.vectors import read_shapes

LARGEST_PAGE = 10_000
"""Most points one answer may hold. The engine holds the interpreter's lock while it makes a page; 10,000
points with 512-d vectors take some 30 ms."""


class Collection:
    """An open shard with the definition it was created from. Used on the engine thread only."""

    def __init__(self, folder: Path, definition: proto.CreateCollection, shard: edge.EdgeShard) -> None:
        self.folder = folder
        self.definition = definition
        self.shapes = read_shapes(definition.vectors_config)
        self._shard: edge.EdgeShard = shard
        self._operations = 0
        self._dirty = False

    @classmethod
    def create(cls, folder: Path, definition: proto.CreateCollection) -> Collection:
        """Make the shard in `folder`, which must not exist, and open it. Raises as `read_shapes` does."""
        shapes = read_shapes(definition.vectors_config)
        params = {name: shape.params() for name, shape in shapes.items()}
        folder.mkdir(parents=True)
        return cls(folder, definition, edge.EdgeShard.create(str(folder), edge.EdgeConfig(vectors=params)))

    @classmethod
    def open(cls, folder: Path, definition: proto.CreateCollection) -> Collection:
        """Open the shard in `folder`; the engine replays the part of its log that was not flushed."""
        return cls(folder, definition, edge.EdgeShard.load(str(folder)))

    @property
    def shard(self) -> edge.EdgeShard:
        """The engine, for reading. Writes go through `write`."""
        return self._shard

    def write(self, operation: edge.UpdateOperation) -> proto.UpdateResult:
        """Apply one operation; it is in the log and visible when this returns."""
        self._dirty = True
        self._shard.update(operation)
        self._operations += 1
        return proto.UpdateResult(operation_id=self._operations, status=proto.Completed)

    def split_present(self, ids: Sequence[PointId]) -> tuple[list[PointId], list[PointId]]:
        """`ids` that are there and `ids` that are not, each in the order given."""
        present = {record.id for record in self._shard.retrieve(list(ids), False, False)}
        return [each for each in ids if each in present], [each for each in ids if each not in present]

    def index_info(self, key: str) -> edge.PayloadIndexInfo | None:
        """The payload index on `key`, None where there is none."""
        return self._shard.info().payload_schema.get(key)

    def check_facet(self, key: str) -> None:
        """Raises InvalidRequest where `key` cannot be faceted on."""
        check_can_facet(key, self.index_info(key))

    def check_order(self, key: str) -> None:
        """Raises InvalidRequest where `key` cannot be ordered by."""
        check_can_order(key, self.index_info(key))

    def flush(self) -> None:
        """Bring to the disk what was written since the last time, so that opening stays quick."""
        if self._dirty:
            self._shard.flush()
            self._dirty = False

    def close(self) -> None:
        """Flush and let go of the folder."""
        self.flush()
        self._shard.close()


def check_page(limit: int, what: str = "limit") -> None:
    """Refuse a page that is too large, as a server in strict mode does, rather than cut it short unseen.

    Raises:
        InvalidRequest: it is above `LARGEST_PAGE`.
    """
    if limit > LARGEST_PAGE:
        raise InvalidRequest(f"Limit exceeded {limit} > {LARGEST_PAGE} for {what}; ask for smaller pages")


def missing_point(point_id: PointId) -> NotFound:
    """What a server answers where a point that must be there is not."""
    return NotFound(f"Not found: No point with id {point_id} found")
