"""Photos."""

from __future__ import annotations

from kith.detection.v1 import assets_pb2 as pb
from services.detection.convert.times import from_captured, to_captured
from services.detection.domain.model import Asset, AssetDetection, NewAsset
from shared.errors import InvalidRequest
from shared.ids import parse_asset_id
from shared.jobs.convert import to_failure, to_timestamp
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
        failure=to_failure(asset.failure) if asset.failure else None,
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
