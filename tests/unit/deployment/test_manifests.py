"""deploy/kubernetes: every manifest by its schema, and what must agree between them and the code.

No cluster has run them (deploy/README.md); these tests are all that stands for them.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.options.run_config import run_config
from runners.flink import version
from runners.flink.configuration import ClusterPorts, ClusterSettings, flink_configuration
from runners.flink.preconditions import check_cluster
from runners.profile import RunnerMisused, RunnerRefused
from tests.support.fake_flink import FakeFlink
from tests.support.manifest_schema import problems
from tests.unit.deployment.schemas import SCHEMAS

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
LOCKED = dict(
    line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line
)


LOADED = [each for file in FILES for each in yaml.safe_load_all(file.read_text())]
ALL: dict[str, Any] = {each["kind"]: each for each in LOADED}
"""kind -> the manifest, of two policies that of the job server."""

POLICIES = {each["metadata"]["name"]: each for each in LOADED if each["kind"] == "NetworkPolicy"}


def containers(kind: str) -> dict[str, Any]:
    pod = ALL[kind]["spec"]["template"]["spec"]
    return {each["name"]: each for each in pod["containers"]}


def flink() -> dict[str, Any]:
    found: dict[str, Any] = ALL["FlinkDeployment"]["spec"]
    return found


def workers() -> dict[str, Any]:
    main, pool = flink()["taskManager"]["podTemplate"]["spec"]["containers"]
    assert main == {"name": "flink-main-container"}
    found: dict[str, Any] = pool
    return found


@pytest.mark.parametrize("manifest", LOADED, ids=lambda each: each["metadata"]["name"])
def test_a_manifest_has_only_fields_that_its_kind_has(manifest: dict[str, Any]) -> None:
    assert problems(manifest, SCHEMAS[manifest["kind"]]) == []


def test_every_manifest_has_a_schema() -> None:
    assert ALL.keys() == SCHEMAS.keys()
    assert len(LOADED) == len(ALL) + 1
    assert POLICIES.keys() == {"payments-job-server", "payments-task-managers"}


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("FlinkDeployment", ["spec", "flinkVersion"], "1.19"),
        ("FlinkDeployment", ["spec", "flinkConfiguration", "taskmanager.numberOfTaskSlots"], 1),
        ("FlinkDeployment", ["spec", "taskManager", "replica"], 2),
        ("FlinkDeployment", ["spec", "jobManager", "resource", "memory"], "2048Mi"),
        ("Job", ["spec", "template", "spec", "restartPolicy"], "never"),
        ("Job", ["spec", "backoffLimit"], "0"),
        ("Service", ["spec", "ports"], []),
        ("Deployment", ["metadata", "name"], "Job_Server"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else str(value),
)
def test_a_slip_is_noticed(kind: str, place: list[str], value: Any) -> None:
    changed = copy.deepcopy(ALL[kind])
    at = changed
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = value
    (found,) = problems(changed, SCHEMAS[kind])
    assert found.startswith(".".join(place[:-1]))
    assert place[-1] in found


def test_what_is_missing_is_noticed() -> None:
    assert problems({}, SCHEMAS["Job"]) == [
        "apiVersion: missing",
        "kind: missing",
        "metadata: missing",
        "spec: missing",
    ]


@pytest.mark.parametrize("file", [*FILES, ROOT / "deploy" / "Dockerfile"], ids=lambda f: f.name)
def test_every_file_says_that_it_was_never_run(file: Path) -> None:
    assert re.search(r"Never (built or )?run where it was written", file.read_text())
    assert "deploy/README.md" in file.read_text()
    assert file.name in (ROOT / "deploy" / "README.md").read_text()


def test_the_cluster_has_the_configuration_of_the_one_that_the_tests_run() -> None:
    ports = ClusterPorts(1, 2, 3, 4, ())
    ours = flink_configuration(ClusterSettings(), ports, Path("/checkpoints"))
    theirs = flink()["flinkConfiguration"]
    prefixes = ("restart-strategy", "state.", "heartbeat", "execution.checkpointing")
    for key, value in ours.items():
        if key.startswith(prefixes):
            assert theirs[key] == value, key
    assert theirs["env.java.opts.all"].split() == list(version.JAVA_FLAGS)


def test_the_cluster_meets_the_preconditions_of_the_job() -> None:
    def rest(slots: int, **keys: str) -> FakeFlink:
        double = FakeFlink()
        double.keys = {**flink()["flinkConfiguration"], **keys}
        double.overview = lambda: {"slots-total": slots}  # type: ignore[method-assign]
        return double

    streaming = job().streaming
    assert streaming is not None
    slots = int(flink()["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    slots *= flink()["taskManager"]["replicas"]
    # A native cluster would have no TaskManager before its first job.
    assert flink()["mode"] == "standalone"
    check_cluster(rest(slots), streaming.parallelism)
    with pytest.raises(RunnerMisused):
        check_cluster(rest(slots - 1), streaming.parallelism)
    with pytest.raises(RunnerRefused):
        check_cluster(rest(slots, **{"state.checkpoints.dir": ""}), streaming.parallelism)


def job() -> Any:
    (run,) = containers("Job").values()
    assert run["command"] == ["payment-pipeline", "run"]
    return run_config(run["args"])


def test_the_command_of_the_job_is_accepted_and_leads_to_the_other_manifests() -> None:
    config = job()
    assert config.streaming.detach
    assert not config.streaming.in_this_process
    assert config.shards == 8
    name = ALL["FlinkDeployment"]["metadata"]["name"]
    # The operator names the service of the REST interface so.
    assert config.streaming.flink_master == f"{name}-rest:8081"
    (server,) = containers("Deployment").values()
    assert f"--flink-master={name}-rest:8081" in server["args"]
    arguments = dict(each.split("=", 1) for each in containers("Job")["run"]["args"] if "=" in each)
    service = ALL["Service"]
    port = service["spec"]["ports"][0]["port"]
    assert arguments["--job_endpoint"] == f"{service['metadata']['name']}:{port}"
    assert f"--job-host={service['metadata']['name']}" in server["args"]
    assert arguments["--environment_config"] == f"127.0.0.1:{workers()['args'][0]}"


def test_services_policies_and_volumes_find_what_they_name() -> None:
    labels = ALL["Deployment"]["spec"]["template"]["metadata"]["labels"]
    policy = POLICIES["payments-job-server"]["spec"]
    assert ALL["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert ALL["Service"]["spec"]["selector"] == labels
    assert policy["podSelector"]["matchLabels"] == labels
    (rule,) = policy["ingress"]
    client = ALL["Job"]["spec"]["template"]["metadata"]["labels"]
    assert rule["from"] == [{"podSelector": {"matchLabels": client}}]
    (server,) = containers("Deployment").values()
    ports = [each["containerPort"] for each in server["ports"]]
    assert [each["port"] for each in rule["ports"]] == ports
    assert [each["targetPort"] for each in ALL["Service"]["spec"]["ports"]] == ports
    assert {"--job-port=8099", "--artifact-port=8098"} <= set(server["args"])
    assert ports == [8099, 8098]
    task_managers = POLICIES["payments-task-managers"]["spec"]
    cluster = {"app": ALL["FlinkDeployment"]["metadata"]["name"]}
    assert task_managers["podSelector"]["matchLabels"] == {**cluster, "component": "taskmanager"}
    own, prometheus = task_managers["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": cluster}}]}
    reporter = flink()["podTemplate"]["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert [each["port"] for each in prometheus["ports"]] == [reporter]
    claim = {"claimName": ALL["PersistentVolumeClaim"]["metadata"]["name"]}
    for pod in (flink()["podTemplate"]["spec"], ALL["Job"]["spec"]["template"]["spec"]):
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"] == claim
        (mount,) = pod["containers"][0]["volumeMounts"]
        assert mount["name"] == volume["name"]
        for key in ("state.checkpoints.dir", "state.savepoints.dir"):
            place = flink()["flinkConfiguration"][key]
            assert place.startswith(f"file://{mount['mountPath']}/")
    assert ALL["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_versions_are_those_of_the_project() -> None:
    beam = LOCKED["apache-beam"]
    (server,) = containers("Deployment").values()
    assert server["image"] == f"apache/beam_flink{version.FLINK}_job_server:{beam}"
    assert flink()["image"].startswith(f"flink:{version.FLINK}-java17")
    assert flink()["flinkVersion"] == f"v{version.FLINK.replace('.', '_')}"
    ours = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    assert ours is not None
    assert workers()["image"] == f"payment-pipeline:{ours[1]}" == containers("Job")["run"]["image"]
