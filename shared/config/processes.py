"""What every process has: stores, calls, jobs, telemetry."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from shared.config.section import MIB, Section


class DatabaseSettings(Section):
    """PostgreSQL, the truth."""

    url: SecretStr = SecretStr("postgresql+asyncpg://kith@127.0.0.1:5432/kith")
    pool_size: int = Field(10, ge=1, le=200)
    connect_timeout_s: float = Field(10.0, gt=0)
    lock_timeout_ms: int = Field(4000, ge=0, description="A statement waiting longer for a lock fails with ABORTED.")
    statement_timeout_ms: int = Field(55_000, ge=0, description="Below the deadline cap, so the server ends it first.")


class RedisSettings(Section):
    """Redis or Valkey: arq's queue and wake-ups. May be lost at any time; PostgreSQL re-enqueues."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    queue_prefix: str = Field("kith", pattern=r"^[a-z][a-z0-9_]{0,40}$", description="Queues are {prefix}:{service}.")


class QdrantSettings(Section):
    """Qdrant, the rebuildable index."""

    url: str = "http://127.0.0.1:6334"
    api_key: SecretStr | None = None
    prefix: str = Field(
        "kith", pattern=r"^[a-z][a-z0-9_]{0,40}$", description="Collections are {prefix}_faces_{model}."
    )
    timeout_s: float = Field(10.0, gt=0)
    allow_destructive: bool = Field(False, description="Permits creating and deleting collections; `prepare` sets it.")


class RpcSettings(Section):
    """One gRPC server process."""

    host: str = "127.0.0.1"
    port: int = Field(50051, ge=0, le=65535)
    health_port: int = Field(
        50052, ge=0, le=65535, description="grpc.health.v1 alone; answers when the main port is full."
    )
    default_deadline_s: float = Field(10.0, gt=0, description="For calls that come without one.")
    max_deadline_s: float = Field(60.0, gt=0)
    min_deadline_s: float = Field(0.005, ge=0, description="A call with less time left is refused at once.")
    max_concurrent_calls: int = Field(256, ge=1, description="Above it: RESOURCE_EXHAUSTED with RetryInfo.")
    max_message_bytes: int = Field(16 * MIB, ge=MIB)
    drain_s: float = Field(20.0, ge=0, description="How long calls in flight may take to end after SIGTERM.")
    drain_announce_s: float = Field(0.0, ge=0, description="NOT_SERVING is shown this long before calls are refused.")


class ServiceAddresses(Section):
    """Where the four services answer, as gRPC targets."""

    detection: str = "127.0.0.1:50051"
    detection_next: str | None = Field(
        None, description="Detectors of another pack, while a library moves to its model."
    )
    clustering: str = "127.0.0.1:50061"
    persons: str = "127.0.0.1:50071"
    suggestions: str = "127.0.0.1:50081"


class AuthMode(StrEnum):
    """``DISABLED``: every caller may do everything (development). ``TOKENS``: bearer tokens from ``tokens_file``."""

    DISABLED = "disabled"
    TOKENS = "tokens"


class AuthSettings(Section):
    """Who may call what."""

    mode: AuthMode = AuthMode.DISABLED
    tokens_file: Path | None = Field(None, description="JSON: [{token_sha256, subject, libraries, verbs}].")
    service_token: SecretStr | None = Field(None, description="The bearer token this process sends to other services.")

    @model_validator(mode="after")
    def tokens_need_a_file(self) -> Self:
        if self.mode is AuthMode.TOKENS and self.tokens_file is None:
            raise ValueError("KITH_AUTH_TOKENS_FILE is required when KITH_AUTH_MODE=tokens")
        return self


class JobSettings(Section):
    """Long work: leases, slices, the dispatcher."""

    lease_s: float = Field(15.0, gt=0, description="A slice whose worker is silent this long is taken by another.")
    heartbeat_s: float = Field(3.0, gt=0)
    dispatch_interval_s: float = Field(1.0, gt=0, description="How often PostgreSQL is asked for work nobody holds.")
    watch_poll_s: float = Field(1.0, gt=0, description="How often WatchJob looks if no notification came.")
    max_attempts: int = Field(5, ge=1, description="A slice that fails this often fails its job.")
    slices_per_worker: int = Field(2, ge=1)
    drain_s: float = Field(20.0, ge=0)

    @model_validator(mode="after")
    def several_heartbeats_per_lease(self) -> Self:
        if self.heartbeat_s * 3 > self.lease_s:
            raise ValueError("jobs.lease_s must be at least three heartbeats")
        return self


class RelaySettings(Section):
    """The relay from the outbox to Qdrant."""

    batch: int = Field(250, ge=1, le=1000)
    poll_s: float = Field(2.0, gt=0, description="How often the outbox is looked at without a poke.")
    retry_s: float = Field(2.0, gt=0, description="The longest pause between tries while Qdrant is away.")
    lease_s: float = Field(5.0, gt=0, description="Points whose relay is silent this long are taken by another.")


class TelemetrySettings(Section):
    """Logs, metrics, traces."""

    log_level: str = "INFO"
    log_format: str = Field("json", pattern="^(json|console)$")
    metrics_port: int = Field(0, ge=0, le=65535, description="Prometheus text over HTTP; 0 = off.")
    otlp_endpoint: str | None = Field(None, description="OTLP/gRPC collector for traces; unset = no traces are made.")
