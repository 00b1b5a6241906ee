"""The environment as settings."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from shared.config import Environment, Settings, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("KITH_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        ("KITH_ENVIRONMENT", "production", "environment", Environment.PRODUCTION),
        ("KITH_DATABASE_POOL_SIZE", "7", "database.pool_size", 7),
        ("KITH_DATABASE_CONNECT_TIMEOUT_S", "1.5", "database.connect_timeout_s", 1.5),
        ("KITH_QDRANT_ALLOW_DESTRUCTIVE", "true", "qdrant.allow_destructive", True),
        ("KITH_JOBS_MAX_ATTEMPTS", "9", "jobs.max_attempts", 9),
        ("KITH_IMAGES_ROOTS", '["file:///photos"]', "images.roots.0", "file:///photos"),
        ("KITH_DATA_DIR", "/var/cache/kith", "data_dir", "/var/cache/kith"),
    ],
)
def test_a_variable_reaches_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, path: str, expected: object
) -> None:
    monkeypatch.setenv(variable, value)
    found: object = load_settings()
    for part in path.split("."):
        found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
    assert (str(found) if isinstance(expected, str) and not isinstance(expected, Environment) else found) == expected


def test_a_misspelt_field_of_a_section_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITH_DATABASE_POOLSIZE", "7")
    with pytest.raises(ValidationError) as refused:
        load_settings()
    assert [fault["loc"] for fault in refused.value.errors()] == [("database", "poolsize")]


def test_a_misspelt_section_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # pydantic-settings collects only variables of known sections, so this one looks like any other of the machine.
    monkeypatch.setenv("KITH_DATABSE_POOL_SIZE", "7")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("KITH_DATABASE_POOL_SIZE", "0", "pool_size"),
        ("KITH_QDRANT_PREFIX", "Kith!", "prefix"),
        ("KITH_AUTH_MODE", "tokens", "KITH_AUTH_TOKENS_FILE"),
        ("KITH_JOBS_HEARTBEAT_S", "10", "three heartbeats"),
        ("KITH_ENVIRONMENT", "test", "KITH_QDRANT_PREFIX"),
    ],
)
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, names: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=names):
        load_settings()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITH_DATABASE_URL", "postgresql+asyncpg://kith:hunter2@db/kith")
    assert "hunter2" not in repr(load_settings())
