"""The rules of the house for manifests, beyond what the Kubernetes schemas say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import kubernetes_validate

from deploy.k8s.manifests import (
    Manifest,
    Violation,
    init_containers,
    name_object,
    only_container,
    pod_labels,
    pod_spec,
    select_kind,
    select_workloads,
    walk_containers,
)
from shared.config import ServiceAddresses
from shared.rpc.health import LIVENESS

# matchLabelKeys in topology spread constraints and unhealthyPodEvictionPolicy are on by default from here.
OLDEST_KUBERNETES = "1.30"

SERVICES = tuple(name for name, field in ServiceAddresses.model_fields.items() if field.default is not None)
# The second is there only while libraries move from one model to another.
NEXT_DETECTION = "detection-next-server"
DETECTION = frozenset({"detection-server", NEXT_DETECTION})
PREPARE = "services.detection.prepare"
MODULES = frozenset(
    [f"services.{name}.{role}" for name in SERVICES for role in ("server", "worker")] + ["shared.migrate", PREPARE]
)
# Permits creating and dropping collections.
DESTRUCTIVE = "KITH_QDRANT_ALLOW_DESTRUCTIVE"
GPU = "nvidia.com/gpu"


def check_schema(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every object is valid, without unknown fields, in the oldest Kubernetes supported and the newest."""
    for manifest in manifests:
        for version in (OLDEST_KUBERNETES, kubernetes_validate.latest_version()):
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(str(part) for part in error.path)
                yield Violation(name_object(manifest), f"Kubernetes {version}: {path or 'object'}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                yield Violation(name_object(manifest), error.message)


def check_commands(manifests: Sequence[Manifest], root: Path) -> Iterator[Violation]:
    """Each process is run by exactly one container, as ``python -m MODULE``, and its file is in the tree.

    Those of the detection server are also run by the one of the next model, if there is one.
    Files are asked for once the tree under ``root`` has the first of them.
    """
    present = {module for module in MODULES if (root / module.replace(".", "/")).with_suffix(".py").is_file()}
    run: dict[str, str] = {}
    again = f"Deployment/{NEXT_DETECTION}"
    for where, container in (found for workload in select_workloads(manifests) for found in walk_containers(workload)):
        match container:
            case {"args": ["python", "-m", module], **rest} if "command" not in rest:
                if module not in MODULES:
                    yield Violation(where, f"runs {module}, which is no process of Kith")
                elif present and module not in present:
                    yield Violation(where, f"runs {module}, which has no file")
                elif module in run and not where.startswith(again):
                    yield Violation(where, f"runs {module}, as {run[module]} does")
                if not where.startswith(again):
                    run[module] = where
            case _:
                yield Violation(where, "must run `python -m MODULE` by args alone, below the image's init")
    for module in sorted(MODULES - run.keys()):
        yield Violation("kustomization", f"nothing runs {module}")


def check_preparation(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """The collections are prepared before the detection server starts, and nothing else may create or drop any."""
    for workload in select_workloads(manifests):
        wanted = int(workload["metadata"]["name"] in DETECTION)
        if sum(map(_prepares, init_containers(workload))) != wanted:
            lacking = "lacks" if wanted else "must not have"
            yield Violation(name_object(workload), f"{lacking} an init container that runs {PREPARE}")
        for where, container in walk_containers(workload):
            flags = [entry.get("value") for entry in container.get("env", []) if entry["name"] == DESTRUCTIVE]
            if _prepares(container) and flags != ["true"]:
                yield Violation(where, f"needs {DESTRUCTIVE}=true")
            elif flags and not _prepares(container):
                yield Violation(where, f"must not set {DESTRUCTIVE}")
    for config in select_kind(manifests, "ConfigMap"):
        if DESTRUCTIVE in config["data"]:
            yield Violation(name_object(config), f"must not set {DESTRUCTIVE}")


def _prepares(container: Manifest) -> bool:
    return PREPARE in (container.get("args") or [])


def check_references(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Selectors match the pods they mean; autoscalers, budgets, services and policies have a target."""
    deployments = select_kind(manifests, "Deployment")
    pods = [pod_labels(workload) for workload in select_workloads(manifests)]
    for deployment in deployments:
        matched = sum(_matches(deployment["spec"]["selector"], labels) for labels in pods)
        if not _matches(deployment["spec"]["selector"], pod_labels(deployment)):
            yield Violation(name_object(deployment), "its selector does not match its own pods")
        elif matched > 1:
            yield Violation(name_object(deployment), "its selector matches pods of another workload")
    for service in select_kind(manifests, "Service"):
        targets = [d for d in deployments if _matches({"matchLabels": service["spec"]["selector"]}, pod_labels(d))]
        if len(targets) != 1:
            yield Violation(name_object(service), f"its selector matches {len(targets)} Deployments, not one")
    for budget in select_kind(manifests, "PodDisruptionBudget"):
        if not any(_matches(budget["spec"]["selector"], pod_labels(d)) for d in deployments):
            yield Violation(name_object(budget), "its selector matches no Deployment")
    by_name = {deployment["metadata"]["name"]: deployment for deployment in deployments}
    for autoscaler in select_kind(manifests, "HorizontalPodAutoscaler"):
        target = autoscaler["spec"]["scaleTargetRef"]
        if target["kind"] != "Deployment" or target["name"] not in by_name:
            yield Violation(name_object(autoscaler), f"scales {target['kind']}/{target['name']}, which does not exist")
        elif "replicas" in by_name[target["name"]]["spec"]:
            yield Violation(name_object(by_name[target["name"]]), "sets replicas, which its autoscaler owns")


def check_policies(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Each network policy selects a pod, and every pod is selected by one that governs both directions."""
    policies = select_kind(manifests, "NetworkPolicy")
    workloads = select_workloads(manifests)
    for policy in policies:
        if not any(_matches(policy["spec"]["podSelector"], pod_labels(workload)) for workload in workloads):
            yield Violation(name_object(policy), "selects no pod")
    for workload in workloads:
        directions = {
            direction
            for policy in policies
            if _matches(policy["spec"]["podSelector"], pod_labels(workload))
            for direction in policy["spec"]["policyTypes"]
        }
        if directions != {"Ingress", "Egress"}:
            yield Violation(name_object(workload), f"network policies govern only {sorted(directions)} of its pods")


def check_ports(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every Deployment has all three probes; they, services and the scrape annotation use declared ports.

    Startup and liveness ask for the service that is SERVING as long as the process answers, readiness for all of it.
    """
    for deployment in select_kind(manifests, "Deployment"):
        where, container = name_object(deployment), only_container(deployment)
        numbers = {port["containerPort"] for port in container.get("ports", [])}
        for probe, wanted in (("startupProbe", LIVENESS), ("livenessProbe", LIVENESS), ("readinessProbe", "")):
            asked = container.get(probe, {}).get("grpc", {})
            port = asked.get("port")
            if port not in numbers:
                yield Violation(where, f"{probe} asks port {port}, which the container does not declare")
            elif asked.get("service", "") != wanted:
                yield Violation(where, f"{probe} asks for '{asked.get('service', '')}' instead of '{wanted}'")
        annotations = deployment["spec"]["template"]["metadata"].get("annotations", {})
        scraped = annotations.get("prometheus.io/port")
        if scraped not in {str(number) for number in numbers}:
            yield Violation(where, f"prometheus.io/port is {scraped}, which the container does not declare")
    for service in select_kind(manifests, "Service"):
        for deployment in select_kind(manifests, "Deployment"):
            if not _matches({"matchLabels": service["spec"]["selector"]}, pod_labels(deployment)):
                continue
            names = {port["name"] for port in only_container(deployment).get("ports", [])}
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in names:
                    yield Violation(name_object(service), f"targets port {port['targetPort']}, which no container has")


def check_hardening(manifests: Sequence[Manifest]) -> Iterator[Violation]:
    """Every pod meets the restricted Pod Security Standard, holds no API token, and states what it uses."""
    for workload in select_workloads(manifests):
        pod = pod_spec(workload)
        security = pod.get("securityContext", {})
        held = {
            "runs as root": security.get("runAsNonRoot") is True,
            "has no seccomp profile": security.get("seccompProfile") == {"type": "RuntimeDefault"},
            "mounts an API token": pod.get("automountServiceAccountToken") is False,
            "gets variables named after Services": pod.get("enableServiceLinks") is False,
        }
        yield from (Violation(name_object(workload), what) for what, ok in held.items() if not ok)
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for where, container in walk_containers(workload):
            yield from (Violation(where, what) for what in _soft_spots(container, volumes))


def _soft_spots(container: Manifest, volumes: set[str]) -> Iterator[str]:
    security, resources = container.get("securityContext", {}), container.get("resources", {})
    held = {
        "may gain privileges": security.get("allowPrivilegeEscalation") is False,
        "keeps capabilities": security.get("capabilities") == {"drop": ["ALL"]},
        "has a writable root file system": security.get("readOnlyRootFilesystem") is True,
        "states no requests": {"cpu", "memory"} <= resources.get("requests", {}).keys(),
        "states no limits": {"cpu", "memory"} <= resources.get("limits", {}).keys(),
    }
    yield from (what for what, ok in held.items() if not ok)
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"mounts {mount['name']}, which is no volume of its pod"


def check_accelerators(manifests: Sequence[Manifest], overlay: str) -> Iterator[Violation]:
    """In ``gpu`` the detection server alone has the GPU image, a GPU and its node; in ``cpu`` nothing has.

    Its init containers have the image only: what they do needs no GPU.
    """
    for workload in select_workloads(manifests):
        pod = pod_spec(workload)
        wanted = overlay == "gpu" and workload["metadata"]["name"] == "detection-server"
        signs = {
            "a node selector": "nodeSelector" in pod,
            "a toleration": any(toleration.get("key") == GPU for toleration in pod.get("tolerations", [])),
        }
        yield from _wrong_signs(name_object(workload), signs, wanted)
        starting = init_containers(workload)
        for where, container in walk_containers(workload):
            variables = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
            holds = {
                f"a limit of one {GPU}": container.get("resources", {}).get("limits", {}).get(GPU) == "1",
                "KITH_MODEL_PROVIDER=cuda": variables.get("KITH_MODEL_PROVIDER") == "cuda",
            }
            yield from _wrong_signs(where, {"the gpu image": container["image"].endswith(":gpu")}, wanted)
            yield from _wrong_signs(where, holds, wanted and container not in starting)


def _wrong_signs(where: str, signs: dict[str, bool], wanted: bool) -> Iterator[Violation]:
    for what, has in signs.items():
        if has != wanted:
            yield Violation(where, f"{'lacks' if wanted else 'must not have'} {what}")


def check_secrets(manifests: Sequence[Manifest], examples: Sequence[Manifest]) -> Iterator[Violation]:
    """Every Secret a volume mounts is in the example, and no Secret is among the manifests."""
    keys = {(example["metadata"]["name"], key) for example in examples for key in example["stringData"]}
    for workload in select_workloads(manifests):
        for volume in pod_spec(workload).get("volumes", []):
            secret = volume.get("secret", {})
            for item in secret.get("items", []):
                if (secret["secretName"], item["key"]) not in keys:
                    what = f"mounts {item['key']} of Secret/{secret['secretName']}, which the example lacks"
                    yield Violation(name_object(workload), what)
    for secret in select_kind(manifests, "Secret"):
        yield Violation(name_object(secret), "a Secret does not belong among the manifests")


def _matches(selector: Manifest, labels: dict[str, str]) -> bool:
    exact = selector.get("matchLabels", {}).items() <= labels.items()
    return exact and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )
