"""The committed manifests are right, with and without a program that builds overlays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from deploy.k8s.manifests import OVERLAYS, ROOT, Violation, find_builder, read_patches, read_resources
from deploy.k8s.rules import check_schema
from deploy.k8s.settings import check_variables
from deploy.k8s.validate import Outcome, format_table, main, validate_tree


def violations(outcomes: list[Outcome]) -> list[Violation]:
    return [violation for outcome in outcomes for violation in outcome.violations]


def copy_tree(to: Path) -> Path:
    return Path(shutil.copytree(ROOT, to / "k8s", ignore=shutil.ignore_patterns("*.py", "__pycache__")))


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_tree_breaks_no_rule() -> None:
    assert violations(validate_tree(find_builder())) == []


def test_the_files_alone_break_no_rule() -> None:
    outcomes = validate_tree(None)
    assert violations(outcomes) == []
    assert {outcome.tree for outcome in outcomes} == {
        "example",
        *(f"{name}, files only" for name in OVERLAYS),
    }


def test_every_manifest_file_is_reached_from_an_overlay() -> None:
    reached = {path for overlay in OVERLAYS for path in _named_files(ROOT / "overlays" / overlay)}
    assert reached == set((ROOT / "base").rglob("*.*")) | set((ROOT / "overlays").rglob("*.*"))


def test_a_misspelt_field_is_refused_without_a_builder(tmp_path: Path) -> None:
    root = copy_tree(tmp_path)
    replace_text(root / "base" / "workers" / "persons.yaml", "resources:", "resorces:")
    found = list(check_schema(read_resources(root / "overlays" / "cpu")))
    assert {violation.where for violation in found} == {"Deployment/persons-worker"}
    assert all("'resorces' was unexpected" in violation.what for violation in found)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("base/kith.env", "KITH_QDRANT_URL=", "KITH_QDRANT_ADDRESS="),
        ("base/patches/pod.yaml", "KITH_REDIS_URL", "KITH_REDIS_ADDRESS"),
        ("base/servers/detection.yaml", "KITH_QDRANT_ALLOW_DESTRUCTIVE", "KITH_ALLOW_DESTRUCTIVE"),
    ],
)
def test_an_unknown_variable_is_refused_without_a_builder(tmp_path: Path, file: str, old: str, new: str) -> None:
    root = copy_tree(tmp_path)
    replace_text(root / file, old, new)
    folder = root / "overlays" / "cpu"
    found = {violation.what for violation in check_variables([*read_resources(folder), *read_patches(folder)])}
    assert found == {f"{new.rstrip('=')} is no setting of shared.config"}


def test_a_refused_build_is_a_violation(tmp_path: Path) -> None:
    builder = tmp_path / "kustomize"
    builder.write_text("#!/bin/sh\necho 'no such base' >&2\nexit 1\n")
    builder.chmod(0o755)
    found = violations(validate_tree((str(builder), "build")))
    assert found == [Violation(f"overlays/{overlay}", "no such base") for overlay in OVERLAYS]


def test_a_missing_builder_is_said_aloud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main() == 0
    assert "NOT CHECKED: neither kubectl nor kustomize" in capsys.readouterr().err


def test_the_table_counts_violations() -> None:
    outcome = Outcome("cpu", "schema", 28, (Violation("Deployment/x", "is wrong"),))
    assert format_table([outcome]).splitlines() == [
        "tree  check   objects  violations",
        "cpu   schema  28       1",
    ]


def test_resources_carry_the_generated_configuration() -> None:
    (config,) = [m for m in read_resources(ROOT / "base") if m["kind"] == "ConfigMap"]
    assert config["data"]["KITH_SERVICES_DETECTION"] == "dns:///detection-headless:50051"


def _named_files(folder: Path) -> set[Path]:
    path = folder / "kustomization.yaml"
    content = yaml.safe_load(path.read_text())
    named = [*content.get("resources", []), *(patch["path"] for patch in content.get("patches", []))]
    named += [name for generator in content.get("configMapGenerator", []) for name in generator["envs"]]
    files = {path}
    for name in named:
        target = (folder / name).resolve()
        files |= _named_files(target) if target.is_dir() else {target}
    return files
