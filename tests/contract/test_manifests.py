"""The manifests: rendered, valid, restricted, complete, and the same for every desk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from deploy.kubernetes import credentials
from services.bus import topology
from services.bus.config import Config, ConfigError
from services.grid.profile import load
from tests.conftest import Database

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "deploy/kubernetes/overlays").iterdir())
WORKLOADS = ("Deployment", "Job")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(overlay: str) -> str:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        said = "kubectl 1.28 or newer is needed to render the manifests, and is not installed"
        # A newcomer's machine may do without; what decides whether a change lands may not.
        assert "CI" not in os.environ, said
        pytest.skip(said)
    return run(kubectl, "kustomize", ROOT / "deploy/kubernetes/overlays" / overlay)


def config_maps(manifests: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {
        each["metadata"]["name"]: each["data"] for each in manifests if each["kind"] == "ConfigMap"
    }


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rendered(request.param)))


def pods(manifests: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (each["metadata"]["name"], each["spec"]["template"]["spec"])
        for each in manifests
        if each["kind"] in WORKLOADS
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid(overlay: str, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(rendered(overlay))
    validate = Path(sys.executable).parent / "kubernetes-validate"
    run(validate, "--strict", path)


def test_a_desk_for_each_level_and_all_services(manifests: list[dict[str, Any]]) -> None:
    levels = load(ROOT / "profiles/qionghai").levels
    wanted = {owner.name for owner in topology.instances(levels)}
    assert {name for name, _pod in pods(manifests)} == {*wanted, "topology"}
    for kind in ("Service", "PodDisruptionBudget"):
        assert {each["metadata"]["name"] for each in manifests if each["kind"] == kind} == wanted


def test_desks_differ_in_nothing_but_their_level(manifests: list[dict[str, Any]]) -> None:
    texts = {
        re.sub(r"household|group|village|township", "LEVEL", json.dumps(each, sort_keys=True))
        .replace("LEVELs", "groups")
        .replace('"fsLEVEL"', '"fsGroup"')
        for each in manifests
        if each["kind"] == "Deployment" and each["metadata"]["name"].startswith("dispatch-")
    }
    assert len(texts) == 1


def test_every_pod_is_restricted(manifests: list[dict[str, Any]]) -> None:
    for name, pod in pods(manifests):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
    assert "Secret" not in {each["kind"] for each in manifests}


def test_every_service_has_its_probes_and_time_to_stop(manifests: list[dict[str, Any]]) -> None:
    config = config_maps(manifests)["huashi"]
    for name, pod in pods(manifests):
        if name == "topology":
            continue
        (container,) = pod["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", name
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz", name
        assert pod["terminationGracePeriodSeconds"] > float(config["STOP_SECONDS"]), name
        assert container["ports"][0]["containerPort"] == int(config["HTTP_BIND"].rpartition(":")[2])


def environment(
    manifests: list[dict[str, Any]],
    container: dict[str, Any],
    labels: dict[str, str],
    made: dict[str, dict[str, str]],
) -> dict[str, str]:
    """What a container's process sees, with the Secrets that an operator makes."""
    maps = config_maps(manifests)
    seen: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "secretRef" in source:
            seen |= made[source["secretRef"]["name"]]
        else:
            seen |= maps[source["configMapRef"]["name"]]
    for entry in container.get("env", ()):
        field = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        label = re.fullmatch(r"metadata\.labels\['(.+)'\]", field)
        seen[entry["name"]] = labels[label[1]] if label else entry["value"]
    return seen


def made_secrets() -> dict[str, dict[str, str]]:
    levels = list(load(ROOT / "profiles/qionghai").levels)
    texts = credentials.files(levels, "amqp://rabbitmq:5672/huashi", "mongodb://mongo:27017/huashi")
    return {
        each["metadata"]["name"]: each["stringData"]
        for each in yaml.safe_load_all(texts["secrets.yaml"])
    }


def test_every_process_has_the_configuration_that_it_needs(
    manifests: list[dict[str, Any]], tmp_path: Path
) -> None:
    made = made_secrets()
    used: set[str] = {"huashi-topology"}
    for each in manifests:
        if each["kind"] != "Deployment":
            continue
        template = each["spec"]["template"]
        (container,) = template["spec"]["containers"]
        sources = container["envFrom"]
        used |= {each["secretRef"]["name"] for each in sources if "secretRef" in each}
        seen = environment(manifests, container, template["metadata"]["labels"], made)
        # The folders of the pod, as they are here.
        if "PROFILES" in seen:
            seen["PROFILES"] = seen["PROFILES"].replace("/profiles/", f"{ROOT}/profiles/")
        if "NOTIFY_LOG" in seen:
            seen["NOTIFY_LOG"] = str(tmp_path / "notifications.jsonl")
        config = Config.from_environment(container["args"][0], seen)
        assert config.instance == each["metadata"]["name"]
        assert f"{config.instance}:" in config.amqp_uri
        with pytest.raises(ConfigError):
            Config.from_environment(container["args"][0], {**seen, "AMQP_URI": ""})
    assert used == set(made)


def run_line(database: Any, line: str) -> None:
    """What mongosh does with a line of the scripts, which are made of these calls."""
    if made := re.fullmatch(r'db\.getCollection\("(\w+)"\)\.createIndex\((.+)\);', line):
        database[made[1]].create_index(list(json.loads(made[2]).items()))
    elif made := re.fullmatch(r'db\.updateRole\("([\w-]+)", (.+)\);', line):
        database.command("updateRole", made[1], **json.loads(made[2]))
    else:
        command, _, body = line.removesuffix(");").partition("(")
        told = json.loads(body)
        name = "role" if command == "db.createRole" else "user"
        database.command(command.removeprefix("db."), told.pop(name), **told)


def test_the_credentials_make_users_that_work(mongo: Database, tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    arguments = [str(ROOT / "profiles/qionghai"), "amqp://rabbitmq:5672/huashi"]
    arguments += ["mongodb://mongo:27017/credentials_test", str(folder)]
    assert credentials.main(arguments) == 0
    assert credentials.main(arguments) == 1
    assert credentials.main([]) == 2
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    with MongoClient[dict[str, Any]](mongo.uri()) as client:
        database = client["credentials_test"]
        for script in ("mongodb-users.js", "mongodb-rights.js"):
            for line in (folder / script).read_text().splitlines()[1:]:
                run_line(database, line)
        # Again, as after an upgrade: the users stay, with the rights of now.
        for line in (folder / "mongodb-rights.js").read_text().splitlines()[1:]:
            run_line(database, line)
        names = {keys["name"] for keys in database["audit_notify"].list_indexes()}
        assert names == {"_id_", "at_-1__id_-1", "who_1_at_-1__id_-1", "cases_1_at_-1__id_-1"}
    secrets = {
        each["metadata"]["name"]: each["stringData"]
        for each in yaml.safe_load_all((folder / "secrets.yaml").read_text())
    }
    uri = secrets["huashi-notify"]["MONGODB_URI"]
    uri = uri.replace("mongo:27017", f"127.0.0.1:{mongo.node.port}")
    with MongoClient[dict[str, Any]](uri) as client:
        client["credentials_test"]["contacts"].insert_one({"_id": "x"})
        client["credentials_test"]["audit_notify"].insert_one({"_id": "x"})
        with pytest.raises(OperationFailure, match="not authorized"):
            client["credentials_test"]["audit_notify"].delete_one({"_id": "x"})
    definitions = json.loads((folder / "rabbitmq-definitions.json").read_text())
    users = {user["name"] for user in definitions["users"]}
    assert users >= {"topology", "intake", "dispatch-village"}
    assert definitions["vhosts"] == [{"name": "huashi"}]
