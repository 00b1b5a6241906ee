"""Photos."""

from __future__ import annotations

from kith.common.v1 import types_pb2
from kith.detection.v1 import assets_pb2 as pb
from services.detection.convert.times import from_captured, to_captured
from services.detection.domain.model import Asset, AssetDetection, NewAsset
from shared.errors import InvalidRequest
from shared.ids import parse_asset_id
from shared.jobs.convert import to_timestamp
from shared.jobs.model import ItemFailure
from shared.rpc.enums import from_enum


def to_asset(asset: Asset) -> pb.Asset:
    """A photo as a message."""
    return pb.Asset(
        id=asset.asset_id,
        library_id=asset.library_id,
        uri=asset.uri,
        captured_at=to_captured(asset.captured),
        width=asset.width,
        height=asset.height,
        orientation=asset.orientation,
        difference_hash=asset.difference_hash,
        detection=pb.AssetDetection.Value(f"ASSET_DETECTION_{asset.detection.value}"),
        failure=to_failure(asset.failure),
        face_count=asset.face_count,
        create_time=to_timestamp(asset.created_at),
        update_time=to_timestamp(asset.updated_at),
    )


def from_new_asset(message: pb.NewAsset, field: str) -> NewAsset:
    """A photo to register; ``field`` is its path in the request. Raises :class:`InvalidRequest`."""
    if not message.uri:
        raise InvalidRequest(f"{field}.uri is required", field=f"{field}.uri")
    return NewAsset(
        asset_id=parse_asset_id(message.id, f"{field}.id"),
        uri=message.uri,
        captured=from_captured(message.captured_at, f"{field}.captured_at"),
    )


def from_detection(value: pb.AssetDetection.ValueType, field: str) -> AssetDetection:
    """How far detection got, in the domain's words."""
    return from_enum(pb.AssetDetection.Name, value, AssetDetection, "ASSET_DETECTION_", field)


def to_failure(failure: ItemFailure | None) -> types_pb2.ItemFailure | None:
    """A failed item as a message; None stays unset."""
    if failure is None:
        return None
    return types_pb2.ItemFailure(id=failure.item_id, reason=failure.reason, message=failure.message)
