"""Every setting, threshold and name of Kith, in one tree.

Parsed once at process start by :func:`load_settings` and passed in from there; nothing else reads the environment.
A variable is ``KITH_<SECTION>_<FIELD>``, e.g. ``KITH_DATABASE_URL`` or ``KITH_DETECTION_MIN_CONFIDENCE``. Thresholds that
are cosines belong to the model pack's embedding space: the pack carries them (``pack.json``), and the ones here, when set,
override it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.config.faces import (
    ClusteringSettings,
    DetectionSettings,
    ImageSettings,
    ModelSettings,
    PersonSettings,
    PhotoStoreSettings,
    Provider,
    QualitySettings,
    SuggestionSettings,
)
from shared.config.processes import (
    AuthMode,
    AuthSettings,
    DatabaseSettings,
    JobSettings,
    QdrantSettings,
    RedisSettings,
    RelaySettings,
    RpcSettings,
    ServiceAddresses,
    TelemetrySettings,
)
from shared.config.section import MIB, Section

__all__ = [
    "MIB",
    "AuthMode",
    "AuthSettings",
    "ClusteringSettings",
    "DatabaseSettings",
    "DetectionSettings",
    "Environment",
    "ImageSettings",
    "JobSettings",
    "ModelSettings",
    "PersonSettings",
    "PhotoStoreSettings",
    "Provider",
    "QdrantSettings",
    "QualitySettings",
    "RedisSettings",
    "RelaySettings",
    "RpcSettings",
    "Section",
    "ServiceAddresses",
    "Settings",
    "SuggestionSettings",
    "TelemetrySettings",
    "load_settings",
]


class Environment(StrEnum):
    """Where the process runs. ``TEST`` arms the guard that refuses any collection without the test's own prefix."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"
    TEST = "test"


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="KITH_", env_nested_delimiter="_", env_nested_max_split=1, frozen=True, extra="ignore"
    )

    environment: Environment = Environment.DEVELOPMENT
    data_dir: Annotated[Path, Field(description="Scratch space of this process.")] = Path("/var/tmp/kith")
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    qdrant: QdrantSettings = QdrantSettings()
    rpc: RpcSettings = RpcSettings()
    services: ServiceAddresses = ServiceAddresses()
    auth: AuthSettings = AuthSettings()
    jobs: JobSettings = JobSettings()
    relay: RelaySettings = RelaySettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    images: ImageSettings = ImageSettings()
    model: ModelSettings = ModelSettings()
    detection: DetectionSettings = DetectionSettings()
    quality: QualitySettings = QualitySettings()
    clustering: ClusteringSettings = ClusteringSettings()
    persons: PersonSettings = PersonSettings()
    suggestions: SuggestionSettings = SuggestionSettings()

    @field_validator("data_dir")
    @classmethod
    def expand_home(cls, value: Path) -> Path:
        return value.expanduser()

    @model_validator(mode="after")
    def test_prefix_is_random(self) -> Self:
        if self.environment is Environment.TEST and not self.qdrant.prefix.startswith("test_"):
            raise ValueError(
                "in tests KITH_QDRANT_PREFIX must start with 'test_', so that no test touches real vectors"
            )
        return self


def load_settings() -> Settings:
    """Read the environment once. Raises ``pydantic.ValidationError`` naming each variable that is wrong."""
    return Settings()
