"""Names of collections, their shape, and the guard before anything is created or deleted. The one place for all three."""

from __future__ import annotations

import grpc
from qdrant_client import AsyncQdrantClient, models

from shared.config import Environment, QdrantSettings
from shared.db.outbox import PointKind
from shared.errors import PreconditionFailed, Reason

# Every field that searches filter by has an index, so that no filter is ever a scan.
_TENANT = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
FACE_INDEXES: dict[str, models.PayloadSchemaType | models.KeywordIndexParams] = {
    "library_id": _TENANT,
    "asset_id": models.PayloadSchemaType.KEYWORD,
    "person_id": models.PayloadSchemaType.KEYWORD,
    "cluster_id": models.PayloadSchemaType.KEYWORD,
    "assigned": models.PayloadSchemaType.BOOL,
    "state": models.PayloadSchemaType.KEYWORD,
    "quality": models.PayloadSchemaType.FLOAT,
    "captured_at": models.PayloadSchemaType.DATETIME,
    "prototype": models.PayloadSchemaType.BOOL,
    "row_version": models.PayloadSchemaType.INTEGER,
}
CENTROID_INDEXES: dict[str, models.PayloadSchemaType | models.KeywordIndexParams] = {
    "library_id": _TENANT,
    "person_id": models.PayloadSchemaType.KEYWORD,
    "kind": models.PayloadSchemaType.KEYWORD,
    "row_version": models.PayloadSchemaType.INTEGER,
}


class DimensionMismatch(PreconditionFailed):
    """A collection is there, but for vectors of another model."""

    reason = Reason.MODEL_MISMATCH


class Collections:
    """Names and shapes for one prefix. Vectors of two models never share a collection."""

    def __init__(self, client: AsyncQdrantClient, settings: QdrantSettings, environment: Environment) -> None:
        self._client = client
        self._settings = settings
        self._environment = environment

    def faces(self, model_version: str) -> str:
        """Name of the collection of face embeddings of one model."""
        return f"{self._settings.prefix}_faces_{model_version}"

    def centroids(self, model_version: str) -> str:
        """Name of the collection of centroids of one model."""
        return f"{self._settings.prefix}_centroids_{model_version}"

    def named(self, kind: PointKind, model_version: str) -> str:
        """Name of the collection of one kind of points of one model."""
        return self.faces(model_version) if kind is PointKind.FACE else self.centroids(model_version)

    async def create_missing(self, model_version: str, dimension: int) -> list[str]:
        """Create both collections of a model where they are missing, with their indexes; returns the names created.

        An index that is missing is made up for: whoever created the collection may have died before it.

        Raises :class:`PreconditionFailed` with MODEL_MISMATCH if a collection has another dimension, or if one is missing
        and ``qdrant.allow_destructive`` is off.
        """
        created = []
        shapes = ((self.faces(model_version), FACE_INDEXES), (self.centroids(model_version), CENTROID_INDEXES))
        for name, indexes in shapes:
            if await self._client.collection_exists(name):
                await self._check_dimension(name, dimension)
                indexed = set((await self._client.get_collection(name)).payload_schema)
            else:
                self._guard(name)
                await self._client.create_collection(
                    name, vectors_config=models.VectorParams(size=dimension, distance=models.Distance.COSINE)
                )
                indexed = set()
                created.append(name)
            for field, schema in indexes.items():
                if field not in indexed:
                    await self._client.create_payload_index(name, field, field_schema=schema, wait=True)
        return created

    async def drop(self, model_version: str) -> None:
        """Delete both collections of a model. Everything in them can be made again from PostgreSQL."""
        for name in (self.faces(model_version), self.centroids(model_version)):
            self._guard(name)
            await self._client.delete_collection(name)

    async def read_dimension(self, model_version: str) -> int:
        """Length of the vectors of a model, as its collections were made for.

        Raises :class:`PreconditionFailed` with MODEL_MISMATCH unless both are there and equal in that.
        """
        dimension = await self._read_dimension(self.faces(model_version))
        await self._check_dimension(self.centroids(model_version), dimension)
        return dimension

    async def check(self, model_version: str, dimension: int) -> None:
        """Raise :class:`PreconditionFailed` unless both collections are there with this dimension, and
        :class:`DimensionMismatch` if one has another.
        """
        for name in (self.faces(model_version), self.centroids(model_version)):
            await self._check_dimension(name, dimension)

    async def _read_dimension(self, name: str) -> int:
        try:
            found = (await self._client.get_collection(name)).config.params.vectors
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise PreconditionFailed(
                    f"collection '{name}' is missing; run `python -m services.detection.prepare`",
                    reason=Reason.MODEL_MISMATCH,
                ) from error
            raise
        return found.size if isinstance(found, models.VectorParams) else 0

    async def _check_dimension(self, name: str, dimension: int) -> None:
        size = await self._read_dimension(name)
        if size != dimension:
            raise DimensionMismatch(
                f"collection '{name}' holds vectors of {size} numbers, the model makes {dimension}",
                metadata={"expected": str(size), "actual": str(dimension)},
            )

    def _guard(self, name: str) -> None:
        if not self._settings.allow_destructive:
            raise PreconditionFailed(
                f"creating or deleting collection '{name}' needs KITH_QDRANT_ALLOW_DESTRUCTIVE=true",
                reason=Reason.MODEL_MISMATCH,
            )
        if self._environment is Environment.TEST and not name.startswith("test_"):
            raise PreconditionFailed(f"a test may not touch collection '{name}'", reason=Reason.MODEL_MISMATCH)
