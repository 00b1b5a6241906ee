"""A small, right set of manifests, made without kustomize, for tests that break it in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from deploy.k8s.manifests import Manifest, Violation, init_containers, pod_spec

Rule = Callable[[list[Manifest]], Iterable[Violation]]

PORTS = {"grpc": 50051, "health": 50052, "metrics": 9090}


def make_manifests() -> list[Manifest]:
    """One server with all that belongs to it, and the Services its settings name."""
    services = [make_service(name) for name in ("detection", "clustering", "persons", "suggestions")]
    return [
        make_server(),
        make_config(),
        make_autoscaler(),
        make_budget(),
        make_policy(),
        services[0],
        *services[1:],
    ]


def make_server() -> Manifest:
    labels = {"app.kubernetes.io/name": "detection-server", "app.kubernetes.io/component": "server"}
    ready = {"grpc": {"port": PORTS["health"]}}
    alive = {"grpc": {"port": PORTS["health"], "service": "liveness"}}
    container: dict[str, Any] = {
        "name": "kith",
        "image": "kith:cpu",
        "args": ["python", "-m", "services.detection.server"],
        "ports": [{"name": name, "containerPort": port} for name, port in PORTS.items()],
        "startupProbe": alive,
        "readinessProbe": ready,
        "livenessProbe": alive,
        "resources": {
            "requests": {"cpu": "1", "memory": "1Gi"},
            "limits": {"cpu": "2", "memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "envFrom": [{"configMapRef": {"name": "config"}}],
        "env": [
            {
                "name": "KITH_DATABASE_URL",
                "valueFrom": {"secretKeyRef": {"name": "secrets", "key": "database-url"}},
            },
            {"name": "KITH_MODEL_THREADS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "tokens", "mountPath": "/etc/kith"},
        ],
    }
    probed = ("ports", "startupProbe", "readinessProbe", "livenessProbe")
    prepare = {
        **{key: value for key, value in deepcopy(container).items() if key not in probed},
        "name": "prepare",
        "args": ["python", "-m", "services.detection.prepare"],
    }
    prepare["env"].append({"name": "KITH_QDRANT_ALLOW_DESTRUCTIVE", "value": "true"})
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 35,
        "initContainers": [prepare],
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {
                "name": "tokens",
                "secret": {"secretName": "secrets", "items": [{"key": "tokens", "path": "tokens.json"}]},
            },
        ],
    }
    annotations = {"prometheus.io/port": "9090"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "detection-server", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
        },
    }


def make_config() -> Manifest:
    data = {
        "KITH_DATA_DIR": "/tmp/kith",
        "KITH_MODEL_ROOT": "/tmp/models",
        "KITH_RPC_HOST": "0.0.0.0",
        "KITH_RPC_DRAIN_S": "20",
        "KITH_RPC_DRAIN_ANNOUNCE_S": "5",
        "KITH_TELEMETRY_METRICS_PORT": "9090",
        "KITH_AUTH_TOKENS_FILE": "/etc/kith/tokens.json",
    }
    for name in ("detection", "clustering", "persons", "suggestions"):
        data[f"KITH_SERVICES_{name.upper()}"] = f"dns:///{name}:50051"
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": data}


def make_secret() -> Manifest:
    data = {"database-url": "postgresql+asyncpg://kith@postgres/kith", "tokens": "[]"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secrets"}, "stringData": data}


def make_service(name: str) -> Manifest:
    # One Deployment stands for all four: what is tested is that the names resolve.
    spec = {
        "clusterIP": "None",
        "selector": {"app.kubernetes.io/name": "detection-server"},
        "ports": [{"name": "grpc", "port": 50051, "targetPort": "grpc"}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def make_autoscaler() -> Manifest:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "detection-server"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "detection-server"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 3},
    }


def make_budget() -> Manifest:
    selector = {"matchLabels": {"app.kubernetes.io/name": "detection-server"}}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "detection-server"},
        "spec": {"maxUnavailable": 1, "selector": selector},
    }


def make_policy() -> Manifest:
    selector = {"matchLabels": {"app.kubernetes.io/component": "server"}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "every-pod"},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"]},
    }


def find(manifests: list[Manifest], kind: str) -> Manifest:
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


def container_of(manifests: list[Manifest]) -> Manifest:
    container: Manifest = pod_spec(find(manifests, "Deployment"))["containers"][0]
    return container


def prepare_of(manifests: list[Manifest]) -> Manifest:
    (container,) = init_containers(find(manifests, "Deployment"))
    return container
