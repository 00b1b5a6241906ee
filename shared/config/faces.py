"""What is done with photos, faces and people: limits, floors, counts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from shared.config.section import MIB, Section


class PhotoStoreSettings(Section):
    """How to reach the photos of one remote root. Credentials are no setting: see docs/operations.md, Photos."""

    endpoint: str | None = Field(None, description="s3, gs: base url of the store if it is not Amazon's or Google's.")
    region: str | None = Field(None, description="s3 only; default AWS_REGION, else us-east-1.")
    allow_http: bool = Field(False, description="s3, gs: the endpoint may be reached without TLS.")
    anonymous: bool = Field(False, description="s3, gs: requests are not signed and no credentials are looked for.")
    ca_file: Path | None = Field(None, description="PEM certificates to trust besides the usual ones.")


class ImageSettings(Section):
    """What may be read as a photo, and from where."""

    max_bytes: int = Field(64 * MIB, ge=1, description="For a photo read from a uri.")
    max_content_bytes: int = Field(8 * MIB, ge=1, description="For a photo sent inside a request.")
    max_pixels: int = Field(60_000_000, ge=1, description="Width x height above it is refused before decoding.")
    min_side: int = Field(16, ge=1)
    decode_timeout_s: float = Field(10.0, gt=0)
    read_timeout_s: float = Field(30.0, gt=0, description="For a photo read from a uri, all retries included.")
    roots: tuple[str, ...] = Field(
        (),
        description="uris are read only below these: file:///photos, s3://bucket/prefix/, gs://bucket/, https://host/path/.",
    )
    stores: dict[str, PhotoStoreSettings] = Field({}, description="By root, exactly as it is written in `roots`.")

    @field_validator("roots")
    @classmethod
    def roots_are_uris(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for root in value:
            parts = urlsplit(root)
            if parts.scheme not in ("file", "s3", "gs", "https", "http"):
                raise ValueError(
                    f"'{root}' is no root: write file:///folder, s3://bucket/, gs://bucket/ or https://host/"
                )
            if "@" in parts.netloc or parts.query or parts.fragment:
                raise ValueError("a root holds no credentials, no query and no fragment")
            if (parts.scheme == "file") != (parts.netloc == ""):
                raise ValueError(f"'{root}' is no root: file: names no host, the other schemes must name one")
            if "//" in parts.path or {".", ".."} & set(parts.path.split("/")):
                raise ValueError(f"'{root}' is no root: its path has empty or dotted segments")
            # Reading it is what checks it.
            _ = parts.port
        return value

    @model_validator(mode="after")
    def stores_are_of_remote_roots(self) -> Self:
        for root in self.stores:
            if root not in self.roots or root.startswith("file:"):
                raise ValueError(f"images.stores: '{root}' is not a remote root of images.roots")
        return self


class Provider(StrEnum):
    """onnxruntime execution provider. ``AUTO`` takes CUDA when the wheel has it and a device answers, else CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class ModelSettings(Section):
    """The model pack: an InsightFace pack by name (downloaded by InsightFace) or a folder by path."""

    pack: str = "buffalo_l"
    root: Path = Path("~/.insightface")
    version: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9_]{0,40}$", description="Names the embedding space; default from the pack."
    )
    provider: Provider = Provider.AUTO
    threads: int = Field(0, ge=0, description="Inference threads on CPU; 0 = one per core.")


class DetectionSettings(Section):
    """From photo to faces."""

    det_size: int = Field(640, ge=64, le=2048, multiple_of=32)
    min_confidence: float = Field(0.5, ge=0, le=1, description="SCRFD score below it is not a face.")
    nms_iou: float = Field(0.4, gt=0, lt=1)
    min_face_px: float = Field(16.0, ge=0, description="Shorter box side, in pixels of the upright photo.")
    min_quality: float = Field(0.0, ge=0, le=1, description="Faces below it are not kept.")
    redetect_iou: float = Field(0.5, gt=0, le=1, description="A detection this close to a stored box is the same face.")
    max_faces: int = Field(500, ge=1, description="The best by confidence are kept.")
    second_pass: bool = Field(False, description="Look again, in tiles, at large photos with small faces or none.")
    second_pass_min_px: int = Field(
        2000, ge=1, description="Longer side of a photo, from which it may be looked at twice."
    )
    batch_max: int = Field(16, ge=1, description="Photos per inference on a GPU; always 1 on CPU.")
    batch_wait_ms: float = Field(4.0, ge=0)
    queue_max: int = Field(64, ge=1, description="Photos waiting for inference; above it RESOURCE_EXHAUSTED.")
    max_waiting_mb: int = Field(1024, ge=16, description="Decoded photos that may be held at once, for all callers.")
    stream_window: int = Field(16, ge=1, description="DetectStream: photos in flight per stream.")
    session_slice: int = Field(256, ge=1, description="Photos per job slice.")
    session_batch: int = Field(16, ge=1, description="Photos stored per transaction.")
    crop_margin: float = Field(
        0.25,
        ge=0,
        le=2,
        description="Room around a face's crop, as a share of its box's longer side, if a call names none.",
    )
    crop_cache_mb: int = Field(64, ge=0, description="Memory of a server for crops it has cut; 0 keeps none.")
    crop_cache_ttl_s: float = Field(300.0, gt=0, description="A crop is cut anew after this long.")


class QualitySettings(Section):
    """How the parts of quality become one figure; see ``shared/faces/quality.py`` for the formula."""

    full_interocular_px: float = Field(40.0, gt=0, description="Inter-ocular distance that counts as full size.")
    full_sharpness: float = Field(
        300.0, gt=0, description="Variance of Laplacian, on the 112 px crop, that counts as sharp."
    )
    max_yaw_deg: float = Field(70.0, gt=0)
    max_pitch_deg: float = Field(50.0, gt=0)
    max_roll_deg: float = Field(90.0, gt=0)
    seed_floor: float = Field(0.2, ge=0, le=1, description="Faces below it may join a cluster but never form one.")


class ClusteringSettings(Section):
    """Grouping unknown faces; cosines unset here come from the pack."""

    neighbours: int = Field(32, ge=4, le=256)
    min_cluster_size: int = Field(3, ge=2)
    min_samples: int = Field(3, ge=1)
    small_set: int = Field(2000, ge=0, description="At most so many faces are clustered by the hdbscan library.")
    exact_faces: int = Field(
        50_000, ge=0, description="Up to so many faces every pair is compared; above, inverted lists are used."
    )
    block_rows: int = Field(2048, ge=64)
    threads: int = Field(2, ge=1, le=256)
    veto_share: float = Field(
        0.1, ge=0, le=1, description="Groups that share more of the smaller one's photos are two people."
    )
    max_missing_share: float = Field(
        0.05, ge=0, le=1, description="A run is refused if more faces than this share have no embedding."
    )
    knn_floor: float | None = Field(None, ge=-1, le=1)
    link_floor: float | None = Field(None, ge=-1, le=1)
    merge: float | None = Field(None, ge=-1, le=1)
    attach: float | None = Field(None, ge=-1, le=1)
    attach_margin: float | None = Field(None, ge=0, le=1)
    memory_budget_mb: int = Field(4096, ge=512, description="A run that would need more is refused before it starts.")
    centroid_interval_s: float = Field(
        5.0, ge=0, description="A person's centroids are computed so long after the first change of their faces."
    )
    centroid_poll_s: float = Field(2.0, gt=0, description="How often the worker looks for such people.")


class PersonSettings(Section):
    """People and their prototypes."""

    max_name_length: int = Field(200, ge=1)
    max_notes_bytes: int = Field(2048, ge=0)
    max_prototypes: int = Field(24, ge=1)
    max_prototypes_per_era: int = Field(4, ge=1)
    prototype_min_quality: float = Field(0.2, ge=0, le=1)
    near_duplicate_bits: int = Field(
        5, ge=0, le=64, description="Photos this alike and close in time have one prototype."
    )
    near_duplicate_s: float = Field(10.0, ge=0)
    settle_interval_s: float = Field(
        0.5, ge=0, description="Dates, cover and prototypes of people with many faces follow this long after."
    )
    settle_poll_s: float = Field(2.0, gt=0, description="How often the worker looks for such people without a poke.")
    matcher_min_persons: int = Field(60, ge=10, description="TrainMatcher: a third of them is held out to measure on.")
    matcher_min_faces: int = Field(5, ge=2, description="Confirmed faces of a person from which a matcher learns.")
    matcher_max_faces_per_person: int = Field(50, ge=2, description="More are sampled, by the seed.")
    matcher_max_faces: int = Field(40_000, ge=1000, description="Of all persons; bounds the memory of a training.")
    matcher_epochs: int = Field(12, ge=0, le=100)
    matcher_seed: int = Field(0, ge=0)
    name_likeness: float = Field(
        0.3,
        gt=0,
        le=1,
        description="Share of the trigrams of two names that is common to both, from which they are alike.",
    )
    watch_poll_s: float = Field(1.0, gt=0, description="How often WatchChanges looks if no notification came.")


class SuggestionSettings(Section):
    """Questions to people. Floors unset here come from the pack."""

    floor: float | None = Field(None, ge=-1, le=1, description="Cosine below which no question is asked.")
    min_confidence: float = Field(0.5, ge=0, le=1, description="Calibrated confidence below which none is asked.")
    assign_precision: float = Field(
        0.995,
        gt=0,
        lt=1,
        description="Calibrated confidence from which a machine assigns a face: AssignKnownFaces, and ClusterFaces by DUAL.",
    )
    max_per_person: int = Field(200, ge=1)
    query_prototypes: int = Field(16, ge=1, description="Prototypes used per find-more run and person.")
    candidates_per_query: int = Field(100, ge=1, le=1000)
    auto_find_more_after: int = Field(
        10,
        ge=0,
        le=1000,
        description="Accepted questions about a person after which more are looked for by itself; 0 = never.",
    )
    auto_find_more_gap_s: float = Field(
        300.0, ge=0, description="More is looked for by itself at most so often for one person."
    )
    lease_s: float = Field(
        300.0, gt=0, description="LeaseReviewQueue: how long questions are one reviewer's and nobody else's."
    )
    max_age_days: int | None = Field(
        180, ge=1, description="ExpireSuggestions closes questions open for longer; unset = never for their age."
    )
    keep_expired_days: int = Field(
        365, ge=1, description="PurgeOrphanedSuggestions removes expired questions this long after."
    )
    completeness_candidates: int = Field(
        2000, ge=10, le=10_000, description="EstimateCompleteness: faces looked at per prototype and centroid."
    )
    near_duplicate_bits: int = Field(5, ge=0, le=64)
    near_duplicate_s: float = Field(10.0, ge=0)
