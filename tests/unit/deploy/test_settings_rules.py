"""The rules of variables, settings and Secrets pass the right manifests and name what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.k8s.manifests import Manifest, pod_spec
from deploy.k8s.rules import check_secrets
from deploy.k8s.settings import check_settings, check_variables, variable_names
from tests.unit.deploy.workloads import Rule, container_of, find, make_manifests, make_secret, prepare_of

RULES: dict[str, Rule] = {
    "variables": check_variables,
    "settings": lambda manifests: check_settings(manifests, [make_secret()]),
    "secrets": lambda manifests: check_secrets(manifests, [make_secret()]),
}


@pytest.mark.parametrize("rule", RULES)
def test_right_manifests_break_no_rule(rule: str) -> None:
    assert list(RULES[rule](make_manifests())) == []


def prepare_without_scratch(m: list[Manifest]) -> None:
    prepare_of(m)["volumeMounts"] = []


def prepare_with_a_wrong_value(m: list[Manifest]) -> None:
    prepare_of(m)["env"].append({"name": "KITH_MODEL_PROVIDER", "value": "abacus"})


def prepare_without_the_secret(m: list[Manifest]) -> None:
    del prepare_of(m)["env"][0]


def prepare_from_no_config(m: list[Manifest]) -> None:
    prepare_of(m)["envFrom"] = []


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


@pytest.mark.parametrize(
    ("rule", "breach", "named"),
    [
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
    ],
)
def test_a_breach_is_named(rule: str, breach: Callable[[list[Manifest]], None], named: str) -> None:
    manifests = make_manifests()
    breach(manifests)
    found = [violation.what for violation in RULES[rule](manifests)]
    assert any(named in what for what in found), found


def test_variable_names_are_those_the_settings_read() -> None:
    names = variable_names()
    assert {
        "KITH_DATA_DIR",
        "KITH_ENVIRONMENT",
        "KITH_RPC_DRAIN_ANNOUNCE_S",
        "KITH_SERVICES_PERSONS",
    } <= names
    assert "KITH_RPC" not in names
