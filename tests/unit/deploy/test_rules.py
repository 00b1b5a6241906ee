"""Each rule of what runs and how passes the right manifests and names what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.k8s.manifests import Manifest, pod_spec
from deploy.k8s.rules import (
    PREPARE,
    check_accelerators,
    check_hardening,
    check_policies,
    check_ports,
    check_preparation,
    check_references,
    check_schema,
)
from tests.unit.deploy.workloads import Rule, container_of, find, make_manifests, make_server, prepare_of

RULES: dict[str, Rule] = {
    "schema": check_schema,
    "preparation": check_preparation,
    "references": check_references,
    "policies": check_policies,
    "ports": check_ports,
    "hardening": check_hardening,
    "cpu": lambda manifests: check_accelerators(manifests, "cpu"),
}


@pytest.mark.parametrize("rule", RULES)
def test_right_manifests_break_no_rule(rule: str) -> None:
    assert list(RULES[rule](make_manifests())) == []


def misspell_a_field(m: list[Manifest]) -> None:
    container_of(m)["imagePulPolicy"] = "Always"


def name_an_unknown_kind(m: list[Manifest]) -> None:
    find(m, "NetworkPolicy")["kind"] = "NetworkPolitics"


def select_other_pods(m: list[Manifest]) -> None:
    find(m, "Deployment")["spec"]["selector"] = {"matchLabels": {"app.kubernetes.io/name": "other"}}


def share_a_selector(m: list[Manifest]) -> None:
    twin = make_server()
    twin["metadata"]["name"] = "twin"
    m.append(twin)


def serve_no_pod(m: list[Manifest]) -> None:
    find(m, "Service")["spec"]["selector"] = {"app.kubernetes.io/name": "nobody"}


def budget_no_pod(m: list[Manifest]) -> None:
    find(m, "PodDisruptionBudget")["spec"]["selector"] = {"matchLabels": {"app.kubernetes.io/name": "nobody"}}


def scale_nothing(m: list[Manifest]) -> None:
    find(m, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] = "nobody"


def fight_the_autoscaler(m: list[Manifest]) -> None:
    find(m, "Deployment")["spec"]["replicas"] = 2


def select_nobody_by_policy(m: list[Manifest]) -> None:
    find(m, "NetworkPolicy")["spec"]["podSelector"] = {
        "matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": ["nobody"]}]
    }


def leave_egress_open(m: list[Manifest]) -> None:
    find(m, "NetworkPolicy")["spec"]["policyTypes"] = ["Ingress"]


def probe_an_undeclared_port(m: list[Manifest]) -> None:
    container_of(m)["readinessProbe"] = {"grpc": {"port": 50059}}


def drop_a_probe(m: list[Manifest]) -> None:
    del container_of(m)["livenessProbe"]


def scrape_an_undeclared_port(m: list[Manifest]) -> None:
    find(m, "Deployment")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] = "9091"


def target_an_undeclared_port(m: list[Manifest]) -> None:
    find(m, "Service")["spec"]["ports"][0]["targetPort"] = "http"


def run_as_root(m: list[Manifest]) -> None:
    pod_spec(find(m, "Deployment"))["securityContext"]["runAsNonRoot"] = False


def open_the_root_file_system(m: list[Manifest]) -> None:
    container_of(m)["securityContext"]["readOnlyRootFilesystem"] = False


def link_services(m: list[Manifest]) -> None:
    del pod_spec(find(m, "Deployment"))["enableServiceLinks"]


def drop_limits(m: list[Manifest]) -> None:
    del container_of(m)["resources"]["limits"]["memory"]


def mount_no_volume(m: list[Manifest]) -> None:
    container_of(m)["volumeMounts"].append({"name": "nothing", "mountPath": "/nothing"})


def ask_readiness_for_life(m: list[Manifest]) -> None:
    container_of(m)["livenessProbe"] = {"grpc": {"port": 50052}}


def ask_life_for_readiness(m: list[Manifest]) -> None:
    container_of(m)["readinessProbe"] = {"grpc": {"port": 50052, "service": "liveness"}}


def prepare_nothing(m: list[Manifest]) -> None:
    del pod_spec(find(m, "Deployment"))["initContainers"]


def prepare_elsewhere(m: list[Manifest]) -> None:
    find(m, "Deployment")["metadata"]["name"] = "persons-server"


def prepare_without_the_flag(m: list[Manifest]) -> None:
    prepare_of(m)["env"].pop()


def let_the_server_destroy(m: list[Manifest]) -> None:
    container_of(m)["env"].append({"name": "KITH_QDRANT_ALLOW_DESTRUCTIVE", "value": "true"})


def let_everything_destroy(m: list[Manifest]) -> None:
    find(m, "ConfigMap")["data"]["KITH_QDRANT_ALLOW_DESTRUCTIVE"] = "true"


def prepare_with_privileges(m: list[Manifest]) -> None:
    del prepare_of(m)["securityContext"]["allowPrivilegeEscalation"]


def prepare_without_limits(m: list[Manifest]) -> None:
    prepare_of(m)["resources"] = {}


def prepare_on_a_gpu(m: list[Manifest]) -> None:
    prepare_of(m)["resources"]["limits"]["nvidia.com/gpu"] = "1"


def take_a_gpu(m: list[Manifest]) -> None:
    container_of(m)["resources"]["limits"]["nvidia.com/gpu"] = "1"


@pytest.mark.parametrize(
    ("rule", "breach", "named"),
    [
        ("schema", misspell_a_field, "'imagePulPolicy' was unexpected"),
        ("schema", name_an_unknown_kind, "NetworkPolitics"),
        ("references", select_other_pods, "does not match its own pods"),
        ("references", share_a_selector, "matches pods of another workload"),
        ("references", serve_no_pod, "matches 0 Deployments"),
        ("references", budget_no_pod, "matches no Deployment"),
        ("references", scale_nothing, "Deployment/nobody, which does not exist"),
        ("references", fight_the_autoscaler, "sets replicas"),
        ("policies", select_nobody_by_policy, "selects no pod"),
        ("policies", leave_egress_open, "govern only ['Ingress']"),
        ("ports", probe_an_undeclared_port, "readinessProbe asks port 50059"),
        ("ports", drop_a_probe, "livenessProbe asks port None"),
        ("ports", ask_readiness_for_life, "livenessProbe asks for '' instead of 'liveness'"),
        ("ports", ask_life_for_readiness, "readinessProbe asks for 'liveness' instead of ''"),
        ("ports", scrape_an_undeclared_port, "prometheus.io/port is 9091"),
        ("ports", target_an_undeclared_port, "targets port http"),
        ("preparation", prepare_nothing, f"lacks an init container that runs {PREPARE}"),
        ("preparation", prepare_elsewhere, f"must not have an init container that runs {PREPARE}"),
        ("preparation", prepare_without_the_flag, "needs KITH_QDRANT_ALLOW_DESTRUCTIVE=true"),
        ("preparation", let_the_server_destroy, "must not set KITH_QDRANT_ALLOW_DESTRUCTIVE"),
        ("preparation", let_everything_destroy, "must not set KITH_QDRANT_ALLOW_DESTRUCTIVE"),
        ("hardening", prepare_with_privileges, "may gain privileges"),
        ("hardening", prepare_without_limits, "states no limits"),
        ("hardening", run_as_root, "runs as root"),
        ("hardening", open_the_root_file_system, "writable root file system"),
        ("hardening", link_services, "variables named after Services"),
        ("hardening", drop_limits, "states no limits"),
        ("hardening", mount_no_volume, "mounts nothing"),
        ("cpu", prepare_on_a_gpu, "must not have a limit of one nvidia.com/gpu"),
        ("cpu", take_a_gpu, "must not have a limit of one nvidia.com/gpu"),
    ],
)
def test_a_breach_is_named(rule: str, breach: Callable[[list[Manifest]], None], named: str) -> None:
    manifests = make_manifests()
    breach(manifests)
    found = [violation.what for violation in RULES[rule](manifests)]
    assert any(named in what for what in found), found


def test_the_gpu_overlay_wants_the_whole_of_it_on_the_detection_server() -> None:
    found = {(violation.where, violation.what) for violation in check_accelerators([make_server()], "gpu")}
    assert found == {
        ("Deployment/detection-server, prepare", "lacks the gpu image"),
        ("Deployment/detection-server", "lacks the gpu image"),
        ("Deployment/detection-server", "lacks a limit of one nvidia.com/gpu"),
        ("Deployment/detection-server", "lacks a node selector"),
        ("Deployment/detection-server", "lacks a toleration"),
        ("Deployment/detection-server", "lacks KITH_MODEL_PROVIDER=cuda"),
    }
