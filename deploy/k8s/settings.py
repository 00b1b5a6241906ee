"""What the manifests tell the processes, held against ``shared.config``.

A misspelt ``KITH_`` variable may be ignored by the process that gets it, so it must be caught here; and the
ports, paths and times that a manifest repeats must be those the settings in that very container amount to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from unittest import mock

from pydantic import BaseModel, ValidationError

from deploy.k8s.manifests import (
    Manifest,
    Violation,
    init_containers,
    name_object,
    only_container,
    pod_spec,
    select_kind,
    select_workloads,
    walk_containers,
    walk_variables,
)
from shared.config import ServiceAddresses, Settings, load_settings

PREFIX = "KITH_"


def variable_names() -> frozenset[str]:
    """Every variable ``shared.config.Settings`` reads."""
    names = set()
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= {f"{PREFIX}{name}_{leaf}".upper() for leaf in field.annotation.model_fields}
        else:
            names.add(f"{PREFIX}{name}".upper())
    return frozenset(names)


def check_variables(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every ``KITH_`` variable, in a manifest or a patch, is one that the settings read."""
    known = variable_names()
    for manifest in manifests:
        for name in walk_variables(manifest):
            if name.startswith(PREFIX) and name not in known:
                yield Violation(name_object(manifest), f"{name} is no setting of shared.config")


def check_settings(manifests: Sequence[Manifest], secrets: Sequence[Manifest]) -> Iterator[Violation]:
    """The settings of each container are valid, and agree with its ports, mounts and grace period.

    ``secrets`` stand in for the cluster's own: a variable taken from a key that none of them has is refused.
    """
    for workload in select_workloads(manifests):
        for where, container in walk_containers(workload):
            for what in _wrong_settings(workload, container, manifests, secrets):
                yield Violation(where, what)


def _wrong_settings(
    workload: Manifest, container: Manifest, manifests: Sequence[Manifest], secrets: Sequence[Manifest]
) -> Iterator[str]:
    try:
        settings = read_settings(container, manifests, secrets)
    except KeyError as missing:
        yield f"takes a variable from {missing.args[0]}, which does not exist"
        return
    except ValidationError as invalid:
        for error in invalid.errors():
            yield f"setting {'.'.join(map(str, error['loc']))}: {error['msg']}"
        return
    yield from _unknown_targets(settings, manifests)
    if container in init_containers(workload):
        yield from _missing_mounts(container, _written_paths(workload, settings))
        yield from _differing_variables(container, only_container(workload))
    else:
        yield from _missing_mounts(container, _written_paths(workload, settings) | _read_paths(workload, settings))
        yield from _differing_ports(workload, settings)
        yield from _short_grace(workload, settings)


def read_settings(container: Manifest, manifests: Sequence[Manifest], secrets: Sequence[Manifest]) -> Settings:
    """What ``load_settings`` will return in the container.

    Raises KeyError naming a ConfigMap, Secret or key that does not exist, and ``pydantic.ValidationError``.
    """
    # Settings are read from the process's environment and nowhere else: the container's takes its place.
    with mock.patch.dict(os.environ, read_environment(container, manifests, secrets), clear=True):
        return load_settings()


def read_environment(container: Manifest, manifests: Sequence[Manifest], secrets: Sequence[Manifest]) -> dict[str, str]:
    """The container's variables. Raises KeyError as :func:`read_settings` does."""
    stores: dict[str, Mapping[str, str]] = {
        name_object(manifest): manifest.get("data", manifest.get("stringData", {}))
        for manifest in (*select_kind(manifests, "ConfigMap"), *secrets)
    }
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        environment |= stores[f"ConfigMap/{source['configMapRef']['name']}"]
    for entry in container.get("env", []):
        match entry:
            case {"value": str(value)}:
                environment[entry["name"]] = value
            case {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}:
                environment[entry["name"]] = stores[f"Secret/{name}"][key]
            case {"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}:
                # The kubelet rounds up to whole cores.
                environment[entry["name"]] = str(math.ceil(float(container["resources"]["limits"]["cpu"])))
            case _:
                raise KeyError(f"a source this check does not know ({entry})")
    return environment


def role_of(workload: Manifest) -> str:
    """``server``, ``worker`` or ``migrate``."""
    return str(workload["metadata"]["labels"]["app.kubernetes.io/component"])


def _differing_ports(workload: Manifest, settings: Settings) -> Iterator[str]:
    expected = {
        "server": {
            "grpc": settings.rpc.port,
            "health": settings.rpc.health_port,
            "metrics": settings.telemetry.metrics_port,
        },
        "worker": {"health": settings.rpc.health_port, "metrics": settings.telemetry.metrics_port},
        "migrate": {},
    }[role_of(workload)]
    declared = {port["name"]: port["containerPort"] for port in only_container(workload).get("ports", [])}
    if declared != expected:
        yield f"declares the ports {declared}, its settings open {expected}"
    if declared and settings.rpc.host in {"127.0.0.1", "localhost", "::1"}:
        yield f"listens on {settings.rpc.host}, where neither probes nor callers reach it"


def _differing_variables(starting: Manifest, staying: Manifest) -> Iterator[str]:
    """What an init container is told otherwise than the process after it.

    Plain values may differ: the provider does, and the flag that permits creating collections.
    """
    if starting.get("envFrom", []) != staying.get("envFrom", []):
        yield "takes other ConfigMaps than the process that starts after it"
    sources = [
        {entry["name"]: entry["valueFrom"] for entry in container.get("env", []) if "valueFrom" in entry}
        for container in (starting, staying)
    ]
    for name in sorted(sources[0].keys() | sources[1].keys()):
        if sources[0].get(name) != sources[1].get(name):
            yield f"takes {name} from elsewhere than the process that starts after it"


def _written_paths(workload: Manifest, settings: Settings) -> dict[str, Path]:
    written = {"KITH_DATA_DIR": settings.data_dir}
    if workload["metadata"]["name"] == "detection-server":
        written["KITH_MODEL_ROOT"] = settings.model.root
    return written


def _read_paths(workload: Manifest, settings: Settings) -> dict[str, Path]:
    if role_of(workload) != "server" or settings.auth.tokens_file is None:
        return {}
    return {"KITH_AUTH_TOKENS_FILE": settings.auth.tokens_file}


def _missing_mounts(container: Manifest, needed: Mapping[str, Path]) -> Iterator[str]:
    mounts = [PurePath(mount["mountPath"]) for mount in container.get("volumeMounts", [])]
    for name, path in needed.items():
        if not any(path.is_relative_to(mount) for mount in mounts):
            yield f"{name}={path} lies on no mounted volume"


def _short_grace(workload: Manifest, settings: Settings) -> Iterator[str]:
    drain_s = {
        "server": settings.rpc.drain_announce_s + settings.rpc.drain_s,
        "worker": settings.jobs.drain_s,
        "migrate": 0.0,
    }[role_of(workload)]
    grace_s = pod_spec(workload).get("terminationGracePeriodSeconds", 30)
    if grace_s < drain_s + 5:
        yield f"is killed {grace_s} s after SIGTERM, but drains for {drain_s:g} s and needs 5 s more to close"


def _unknown_targets(settings: Settings, manifests: Sequence[Manifest]) -> Iterator[str]:
    answering = {
        f"dns:///{service['metadata']['name']}:{port['port']}"
        for service in select_kind(manifests, "Service")
        for port in service["spec"]["ports"]
    }
    for name in ServiceAddresses.model_fields:
        target = getattr(settings.services, name)
        if target is not None and target not in answering:
            yield f"KITH_SERVICES_{name.upper()}={target} is no Service here"
