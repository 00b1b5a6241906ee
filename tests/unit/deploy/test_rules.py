"""Each rule passes the right manifests and names what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from deploy.k8s.manifests import Manifest, Violation, init_containers, only_container, pod_spec
from deploy.k8s.rules import (
    MODULES,
    NEXT_DETECTION,
    PREPARE,
    check_accelerators,
    check_commands,
    check_hardening,
    check_policies,
    check_ports,
    check_preparation,
    check_references,
    check_schema,
    check_secrets,
)
from deploy.k8s.settings import check_settings, check_variables, variable_names
from tests.unit.deploy.workloads import make_manifests, make_secret, make_server

Rule = Callable[[list[Manifest]], Iterable[Violation]]

RULES: dict[str, Rule] = {
    "schema": check_schema,
    "preparation": check_preparation,
    "references": check_references,
    "policies": check_policies,
    "ports": check_ports,
    "hardening": check_hardening,
    "variables": check_variables,
    "settings": lambda manifests: check_settings(manifests, [make_secret()]),
    "secrets": lambda manifests: check_secrets(manifests, [make_secret()]),
    "cpu": lambda manifests: check_accelerators(manifests, "cpu"),
}


def find(manifests: list[Manifest], kind: str) -> Manifest:
    return next(manifest for manifest in manifests if manifest["kind"] == kind)


def container_of(manifests: list[Manifest]) -> Manifest:
    container: Manifest = pod_spec(find(manifests, "Deployment"))["containers"][0]
    return container


def prepare_of(manifests: list[Manifest]) -> Manifest:
    (container,) = init_containers(find(manifests, "Deployment"))
    return container


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


def prepare_without_scratch(m: list[Manifest]) -> None:
    prepare_of(m)["volumeMounts"] = []


def prepare_with_a_wrong_value(m: list[Manifest]) -> None:
    prepare_of(m)["env"].append({"name": "KITH_MODEL_PROVIDER", "value": "abacus"})


def prepare_without_the_secret(m: list[Manifest]) -> None:
    del prepare_of(m)["env"][0]


def prepare_from_no_config(m: list[Manifest]) -> None:
    prepare_of(m)["envFrom"] = []


def prepare_on_a_gpu(m: list[Manifest]) -> None:
    prepare_of(m)["resources"]["limits"]["nvidia.com/gpu"] = "1"


def misspell_a_variable(m: list[Manifest]) -> None:
    container_of(m)["env"].append({"name": "KITH_DETECTION_MIN_CONFIDENSE", "value": "0.5"})


def misspell_a_config_key(m: list[Manifest]) -> None:
    find(m, "ConfigMap")["data"]["KITH_RPC_PROT"] = "50051"


def set_a_wrong_value(m: list[Manifest]) -> None:
    find(m, "ConfigMap")["data"]["KITH_RPC_MAX_CONCURRENT_CALLS"] = "many"


def take_from_no_secret(m: list[Manifest]) -> None:
    container_of(m)["env"][0]["valueFrom"]["secretKeyRef"]["key"] = "dsn"


def open_another_port(m: list[Manifest]) -> None:
    find(m, "ConfigMap")["data"]["KITH_RPC_PORT"] = "50099"


def listen_on_loopback(m: list[Manifest]) -> None:
    find(m, "ConfigMap")["data"]["KITH_RPC_HOST"] = "127.0.0.1"


def drain_longer_than_granted(m: list[Manifest]) -> None:
    find(m, "ConfigMap")["data"]["KITH_RPC_DRAIN_S"] = "30"


def call_an_unknown_service(m: list[Manifest]) -> None:
    find(m, "ConfigMap")["data"]["KITH_SERVICES_PERSONS"] = "dns:///people:50051"


def write_to_the_root_file_system(m: list[Manifest]) -> None:
    find(m, "ConfigMap")["data"]["KITH_DATA_DIR"] = "/var/tmp/kith"


def mount_an_unknown_secret(m: list[Manifest]) -> None:
    pod_spec(find(m, "Deployment"))["volumes"][1]["secret"]["secretName"] = "elsewhere"


def commit_a_secret(m: list[Manifest]) -> None:
    m.append(make_secret())


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
        ("variables", misspell_a_variable, "KITH_DETECTION_MIN_CONFIDENSE is no setting"),
        ("variables", misspell_a_config_key, "KITH_RPC_PROT is no setting"),
        ("settings", set_a_wrong_value, "rpc.max_concurrent_calls"),
        ("settings", take_from_no_secret, "dsn, which does not exist"),
        ("settings", open_another_port, "its settings open"),
        ("settings", listen_on_loopback, "listens on 127.0.0.1"),
        ("settings", drain_longer_than_granted, "is killed 35 s after SIGTERM"),
        ("settings", call_an_unknown_service, "KITH_SERVICES_PERSONS=dns:///people:50051 is no Service"),
        ("settings", write_to_the_root_file_system, "KITH_DATA_DIR=/var/tmp/kith lies on no mounted volume"),
        ("settings", prepare_without_scratch, "KITH_MODEL_ROOT=/tmp/models lies on no mounted volume"),
        ("settings", prepare_with_a_wrong_value, "model.provider"),
        ("settings", prepare_without_the_secret, "takes KITH_DATABASE_URL from elsewhere"),
        ("settings", prepare_from_no_config, "takes other ConfigMaps"),
        ("secrets", mount_an_unknown_secret, "of Secret/elsewhere"),
        ("secrets", commit_a_secret, "does not belong"),
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


def make_process(module: str) -> Manifest:
    server = make_server()
    server["metadata"]["name"] = module
    pod_spec(server)["containers"] = [{**only_container(server), "args": ["python", "-m", module]}]
    del pod_spec(server)["initContainers"]
    return server


def test_every_process_is_run_once(tmp_path: Path) -> None:
    right = [make_process(module) for module in sorted(MODULES)]
    assert list(check_commands(right, tmp_path)) == []
    found = {violation.what for violation in check_commands([*right[1:], right[1]], tmp_path)}
    assert f"nothing runs {min(MODULES)}" in found
    assert any("does" in what and "services.clustering.worker" in what for what in found)


@pytest.mark.parametrize("args", [["python", "-m", "services.faces.server"], ["services.persons.server"], None])
def test_another_command_is_refused(tmp_path: Path, args: list[str] | None) -> None:
    odd = make_process("services.persons.server")
    pod_spec(odd)["containers"][0]["args"] = args
    right = [make_process(module) for module in MODULES]
    found = [violation.where for violation in check_commands([*right, odd], tmp_path)]
    assert found == ["Deployment/services.persons.server"]


def test_an_init_container_is_a_process_too(tmp_path: Path) -> None:
    right = [make_process(module) for module in sorted(MODULES - {PREPARE, "services.detection.server"})]
    assert list(check_commands([*right, make_server()], tmp_path)) == []
    twice = [violation.what for violation in check_commands([*right, make_server(), make_process(PREPARE)], tmp_path)]
    assert twice == [f"runs {PREPARE}, as Deployment/detection-server, prepare does"]


@pytest.mark.parametrize("first", [True, False])
def test_detection_servers_of_a_second_model_run_and_prepare_beside_the_first(tmp_path: Path, first: bool) -> None:
    right = [make_process(module) for module in sorted(MODULES - {PREPARE, "services.detection.server"})]
    following = make_server()
    following["metadata"]["name"] = NEXT_DETECTION
    both = [following, make_server()] if first else [make_server(), following]
    assert list(check_commands([*right, *both], tmp_path)) == []
    assert list(check_preparation(both)) == []
    alone = {violation.what for violation in check_commands([*right, following], tmp_path)}
    assert alone == {f"nothing runs {PREPARE}", "nothing runs services.detection.server"}
    del pod_spec(following)["initContainers"]
    assert [violation.where for violation in check_preparation(both)] == [f"Deployment/{NEXT_DETECTION}"]


def test_a_module_without_a_file_is_refused_once_the_tree_has_any(tmp_path: Path) -> None:
    folder = tmp_path / "services" / "persons"
    folder.mkdir(parents=True)
    (folder / "server.py").touch()
    found = [violation.what for violation in check_commands([make_process(m) for m in MODULES], tmp_path)]
    assert sorted(found) == sorted(f"runs {m}, which has no file" for m in MODULES - {"services.persons.server"})


def test_variable_names_are_those_the_settings_read() -> None:
    names = variable_names()
    assert {
        "KITH_DATA_DIR",
        "KITH_ENVIRONMENT",
        "KITH_RPC_DRAIN_ANNOUNCE_S",
        "KITH_SERVICES_PERSONS",
    } <= names
    assert "KITH_RPC" not in names
