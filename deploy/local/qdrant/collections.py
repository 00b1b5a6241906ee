"""Qdrant's `Collections` service: collections and their aliases."""

from __future__ import annotations

from collections.abc import Mapping

from qdrant_client import grpc as proto

from deploy.local.qdrant.catalogue import Catalogue
from deploy.local.qdrant.errors import InvalidRequest, NotFound, accept_only
from deploy.local.qdrant.indices import write_index
from deploy.local.qdrant.rpc import Method

_TUNING = {"hnsw_config", "optimizers_config", "quantization_config"}
"""Settings of a server that change how fast an answer is, not what it is: kept and shown, no more."""

_CREATE_FIELDS = _TUNING | {
    "collection_name",
    "wal_config",
    "shard_number",
    "on_disk_payload",
    "timeout",
    "vectors_config",
    "replication_factor",
    "write_consistency_factor",
    "metadata",
    "payload",
    "id_tracker",
}
_UPDATE_FIELDS = {"collection_name", "timeout", "hnsw_config", "optimizers_config", "metadata"}


class CollectionsService:
    """The methods of `qdrant.Collections` over a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def methods(self) -> Mapping[str, Method]:
        """The supported methods by their name in the protocol."""
        return {
            "Create": self.create,
            "Update": self.update,
            "Delete": self.delete,
            "Get": self.get,
            "List": self.list,
            "CollectionExists": self.exists,
            "UpdateAliases": self.update_aliases,
            "ListAliases": self.list_aliases,
            "ListCollectionAliases": self.list_collection_aliases,
        }

    def create(self, request: proto.CreateCollection) -> proto.CollectionOperationResponse:
        """Add a collection. Raises as `Catalogue.create` does."""
        accept_only(request, _CREATE_FIELDS)
        self._catalogue.create(request)
        return proto.CollectionOperationResponse(result=True)

    def update(self, request: proto.UpdateCollection) -> proto.CollectionOperationResponse:
        """Change the settings that are only kept and shown. Raises NotFound, Unsupported."""
        accept_only(request, _UPDATE_FIELDS)
        self._catalogue.update(
            request.collection_name,
            proto.CreateCollection(
                hnsw_config=request.hnsw_config if request.HasField("hnsw_config") else None,
                optimizers_config=request.optimizers_config if request.HasField("optimizers_config") else None,
                metadata=request.metadata,
            ),
        )
        return proto.CollectionOperationResponse(result=True)

    def delete(self, request: proto.DeleteCollection) -> proto.CollectionOperationResponse:
        """Remove a collection by its own name; the result is False where there is none."""
        return proto.CollectionOperationResponse(result=self._catalogue.delete(request.collection_name))

    def exists(self, request: proto.CollectionExistsRequest) -> proto.CollectionExistsResponse:
        """Whether there is a collection or an alias of that name."""
        found = request.collection_name in self._catalogue
        return proto.CollectionExistsResponse(result=proto.CollectionExists(exists=found))

    def list(self, _: proto.ListCollectionsRequest) -> proto.ListCollectionsResponse:
        """The names of all collections, sorted."""
        names = [proto.CollectionDescription(name=name) for name in self._catalogue]
        return proto.ListCollectionsResponse(collections=names)

    def get(self, request: proto.GetCollectionInfoRequest) -> proto.GetCollectionInfoResponse:
        """Counts, payload indices and settings. Raises NotFound."""
        collection = self._catalogue[request.collection_name]
        info = collection.shard.info()
        return proto.GetCollectionInfoResponse(
            result=proto.CollectionInfo(
                status=proto.Green,
                optimizer_status=proto.OptimizerStatus(ok=True),
                segments_count=info.segments_count,
                points_count=info.points_count,
                indexed_vectors_count=info.indexed_vectors_count,
                payload_schema={key: write_index(index) for key, index in info.payload_schema.items()},
                config=_write_config(collection.definition),
            )
        )

    def update_aliases(self, request: proto.ChangeAliases) -> proto.CollectionOperationResponse:
        """Apply all actions in order, or none of them. Raises AlreadyExists, InvalidRequest, NotFound."""
        aliases = dict(self._catalogue.aliases)
        for action in request.actions:
            match action.WhichOneof("action"):
                case "create_alias":
                    aliases[action.create_alias.alias_name] = action.create_alias.collection_name
                case "rename_alias":
                    old = action.rename_alias.old_alias_name
                    if old not in aliases:
                        raise NotFound(f"Not found: Alias {old} does not exist!")
                    aliases[action.rename_alias.new_alias_name] = aliases.pop(old)
                case "delete_alias":
                    aliases.pop(action.delete_alias.alias_name, None)
                case _:
                    raise InvalidRequest("an alias action is empty")
        self._catalogue.change_aliases(aliases)
        return proto.CollectionOperationResponse(result=True)

    def list_aliases(self, _: proto.ListAliasesRequest) -> proto.ListAliasesResponse:
        """All aliases."""
        return _write_aliases(self._catalogue.aliases)

    def list_collection_aliases(self, request: proto.ListCollectionAliasesRequest) -> proto.ListAliasesResponse:
        """The aliases of one collection."""
        every = self._catalogue.aliases.items()
        return _write_aliases({alias: name for alias, name in every if name == request.collection_name})


def _write_aliases(aliases: Mapping[str, str]) -> proto.ListAliasesResponse:
    return proto.ListAliasesResponse(
        aliases=[proto.AliasDescription(alias_name=alias, collection_name=aliases[alias]) for alias in sorted(aliases)]
    )


def _write_config(definition: proto.CreateCollection) -> proto.CollectionConfig:
    """The settings as asked for, over a server's defaults, so that a caller may compare them."""
    config = proto.CollectionConfig(
        params=proto.CollectionParams(
            shard_number=1,
            on_disk_payload=True,
            vectors_config=definition.vectors_config,
            replication_factor=1,
            write_consistency_factor=1,
        ),
        hnsw_config=proto.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
        optimizer_config=proto.OptimizersConfigDiff(
            deleted_threshold=0.2,
            vacuum_min_vector_number=1_000,
            default_segment_number=1,
            indexing_threshold=10_000,
            flush_interval_sec=5,
        ),
        wal_config=proto.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
        quantization_config=definition.quantization_config if definition.HasField("quantization_config") else None,
        metadata=definition.metadata,
    )
    if definition.HasField("on_disk_payload"):
        config.params.on_disk_payload = definition.on_disk_payload
    config.hnsw_config.MergeFrom(definition.hnsw_config)
    config.optimizer_config.MergeFrom(definition.optimizers_config)
    config.wal_config.MergeFrom(definition.wal_config)
    return config
