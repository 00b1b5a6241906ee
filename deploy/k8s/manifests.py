"""The manifests as Python objects: read from their files, or built by kustomize as a cluster gets them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Manifest: TypeAlias = dict[str, Any]

ROOT = Path(__file__).resolve().parent
REPOSITORY = ROOT.parents[1]
OVERLAYS = ("cpu", "gpu")
SECRET_EXAMPLE = ROOT / "secret.example.yaml"


class BuildError(Exception):
    """Kustomize refused an overlay; the message is its own."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: the object it was found on, and what is wrong with it."""

    where: str
    what: str


def find_builder() -> tuple[str, ...] | None:
    """The command that builds a kustomization, from PATH, or None."""
    for program, command in (("kubectl", "kustomize"), ("kustomize", "build")):
        path = shutil.which(program)
        if path is not None:
            return (path, command)
    return None


def build_overlay(builder: tuple[str, ...], overlay: Path) -> list[Manifest]:
    """Every object of ``overlay`` after patches. Raises :class:`BuildError`."""
    done = subprocess.run([*builder, str(overlay)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(done.stderr.strip())
    return parse_manifests(done.stdout)


def parse_manifests(text: str) -> list[Manifest]:
    """The objects of a YAML stream, empty documents left out."""
    return [document for document in yaml.safe_load_all(text) if document]


def read_resources(folder: Path) -> list[Manifest]:
    """Every object that ``folder``'s kustomization names, before patches, with its generated ConfigMaps."""
    kustomization = _read_kustomization(folder)
    manifests: list[Manifest] = []
    for name in kustomization.get("resources", []):
        path = folder / name
        manifests += read_resources(path) if path.is_dir() else parse_manifests(path.read_text())
    for generator in kustomization.get("configMapGenerator", []):
        data = dict(pair for name in generator["envs"] for pair in _read_pairs(folder / name))
        metadata = {"name": generator["name"]}
        manifests.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return manifests


def read_patches(folder: Path) -> list[Manifest]:
    """The patches of ``folder``'s kustomization and of those below it: fragments, not whole objects."""
    kustomization = _read_kustomization(folder)
    below = [folder / name for name in kustomization.get("resources", []) if (folder / name).is_dir()]
    paths = sorted({folder / patch["path"] for patch in kustomization.get("patches", [])})
    own = [manifest for path in paths for manifest in parse_manifests(path.read_text())]
    return own + [manifest for path in below for manifest in read_patches(path)]


def name_object(manifest: Manifest) -> str:
    """``Kind/name``, as kubectl prints it."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def select_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """The manifests of these kinds, in their order."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def select_workloads(manifests: Iterable[Manifest]) -> list[Manifest]:
    """What runs pods."""
    return select_kind(manifests, "Deployment", "Job")


def pod_spec(workload: Manifest) -> Manifest:
    """The pod a workload makes."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def pod_labels(workload: Manifest) -> dict[str, str]:
    """The labels of the pods a workload makes."""
    return dict(workload["spec"]["template"].get("metadata", {}).get("labels", {}))


def only_container(workload: Manifest) -> Manifest:
    """The one container that stays: every process is alone in its own pod. Raises ValueError if it is not."""
    (container,) = pod_spec(workload)["containers"]
    return dict(container)


def init_containers(workload: Manifest) -> list[Manifest]:
    """The containers that end before :func:`only_container` starts."""
    return list(pod_spec(workload).get("initContainers", []))


def walk_containers(workload: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Every container of a pod with the name a violation on it goes by, those that run first before the one that stays."""
    for container in init_containers(workload):
        yield f"{name_object(workload)}, {container['name']}", container
    yield name_object(workload), only_container(workload)


def walk_variables(node: object) -> Iterator[str]:
    """The name of every environment variable anywhere in a manifest or a patch, ConfigMap keys included."""
    if isinstance(node, dict):
        if node.get("kind") == "ConfigMap":
            yield from node.get("data", {})
        for key, value in node.items():
            if key == "env" and isinstance(value, list):
                yield from (entry["name"] for entry in value)
            else:
                yield from walk_variables(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk_variables(value)


def _read_kustomization(folder: Path) -> Manifest:
    content: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return content


def _read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value
