"""The manifests for Kubernetes, and the chart of which they are made. No cluster runs them here."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_pool.cluster.stopping import GRACE
from cluster_pool.core.metrics import GAUGES, PREFIX
from tests.deploy.commands import settings_of, time_to_stop
from tests.deploy.test_image import environment as of_the_image
from tests.servers import DEPLOY

MANIFESTS, CHART = DEPLOY / "kubernetes.yaml", DEPLOY / "helm"
NAME = "cluster-pool"
OF_THE_SECRET = {
    "CLUSTER_POOL_REDIS": "redis://redis-1",
    "CLUSTER_POOL_ADMIN_TOKEN": "token",
    "CLUSTER_POOL_SECRET": "secret",
}
AUTOSCALED = ("--set", "autoscaling.enabled=true")
"""The values with which the manifests are made."""

needs_helm = pytest.mark.skipif(
    not shutil.which("helm"), reason="missing: go install helm.sh/helm/v3/cmd/helm@v3.22.0"
)
needs_schemas = pytest.mark.skipif(
    not shutil.which("kubernetes-validate"), reason="missing: pip install kubernetes-validate"
)

Manifest = dict[str, Any]


def by_kind(text: str) -> dict[str, Manifest]:
    """The resources of a text; each kind is there once."""
    found = [one for one in yaml.safe_load_all(text) if one]
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


def shipped() -> dict[str, Manifest]:
    """The resources of the manifests."""
    return by_kind(MANIFESTS.read_text())


def pod_of(resources: dict[str, Manifest]) -> tuple[Manifest, Manifest]:
    """The pod of the deployment, and its only container."""
    pod: Manifest = resources["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def settings(container: Manifest) -> dict[str, Any]:
    """How a node is set up there."""
    given = {one["name"]: one.get("value", "from-the-pod") for one in container["env"]}
    return settings_of(container["args"], of_the_image() | OF_THE_SECRET | given)


def helm(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run Helm, which asks no cluster for these."""
    return subprocess.run(["helm", *map(str, words)], capture_output=True, text=True)


def rendered(*options: str) -> str:
    """The manifests that the chart makes of these values."""
    done = helm("template", NAME, CHART, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def checked_time(resources: dict[str, Manifest]) -> float:
    """The seconds that a pod has to end; they are enough."""
    pod, container = pod_of(resources)
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    needed = float(seconds) + time_to_stop(settings(container))
    assert pod["terminationGracePeriodSeconds"] >= needed
    return needed


def test_a_pod_has_the_time_that_its_end_takes() -> None:
    """The preStop counts, too: Kubernetes begins to count before it."""
    assert checked_time(shipped()) > GRACE


def test_probes_ask_what_they_are_for() -> None:
    """Liveness does not depend on Redis, and a start may wait for it as long as the node does."""
    _, container = pod_of(shipped())
    probes = [container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [probe["httpGet"]["path"] for probe in probes] == ["/readyz", "/readyz", "/healthz"]
    assert {probe["httpGet"]["port"] for probe in probes} == {"websockets"}
    start, ready, _ = probes
    assert start["periodSeconds"] * start["failureThreshold"] > settings(container)["wait"]
    announcement = min(5.0, GRACE / 4)
    assert ready["periodSeconds"] * ready["failureThreshold"] < announcement


def test_ports_are_those_of_the_node() -> None:
    """By number in the container, and by name elsewhere."""
    resources = shipped()
    _, container = pod_of(resources)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    ours = settings(container)
    assert ports == {"websockets": ours["port"], "admin": ours["admin_port"]}
    assert ours["admin_host"] == ours["host"] == "0.0.0.0"
    (port,) = resources["Service"]["spec"]["ports"]
    assert port["targetPort"] in ports


def test_resources_find_the_pods() -> None:
    """By their labels; the autoscaler finds the deployment, and nobody else counts its pods."""
    resources = shipped()
    labels = resources["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    service, deployment = (resources[kind]["spec"] for kind in ("Service", "Deployment"))
    budget, scaler = (
        resources[kind]["spec"] for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler")
    )
    assert service["selector"].items() <= labels
    for one in (deployment, budget):
        assert one["selector"]["matchLabels"].items() <= labels
    assert scaler["scaleTargetRef"]["name"] == resources["Deployment"]["metadata"]["name"]
    assert "replicas" not in deployment
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert budget["maxUnavailable"] < scaler["minReplicas"]


def test_pods_are_shut_in_and_get_no_variables_of_services() -> None:
    """A Service of this name would set the port of the node."""
    pod, container = pod_of(shipped())
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_nodes_are_scaled_by_a_metric_that_there_is() -> None:
    """The name is one of ours."""
    (metric,) = shipped()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in {f"{PREFIX}{name}" for name, _ in GAUGES.values()}


def test_the_chart_has_the_version_of_the_package() -> None:
    """And its image has it as its tag."""
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert str(chart["appVersion"]) == project["version"]
    assert pod_of(shipped())[1]["image"] == f"{NAME}:{project['version']}"


def test_every_value_of_the_chart_has_a_schema() -> None:
    """A value that is misspelt is refused, at both levels."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) <= set(schema["properties"])
    for name in ("image", "service", "autoscaling", "podMonitor"):
        assert set(values[name]) == set(schema["properties"][name]["properties"])


@needs_schemas
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_kubernetes_knows_every_field(version: str) -> None:
    """By the schemas of its versions."""
    options = ("--strict", "--kubernetes-version", version)
    done = subprocess.run(["kubernetes-validate", *options, MANIFESTS], capture_output=True)
    assert done.returncode == 0, done.stdout


@needs_helm
def test_helm_finds_no_fault_in_the_chart() -> None:
    """No warning either."""
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


@needs_helm
def test_the_manifests_are_what_the_chart_makes() -> None:
    """A change of the chart is made in both: the command stands above the manifests."""
    _, separator, ours = MANIFESTS.read_text().partition("---\n")
    assert separator + ours == rendered(*AUTOSCALED)


@needs_helm
@needs_schemas
def test_other_values_make_good_manifests(tmp_path: Path) -> None:
    """With all that is optional, and more grace; the monitor's kind is not Kubernetes' own."""
    values = {
        "grace": 300,
        "image": {"repository": "registry.example/chat", "tag": "7", "pullSecrets": ["registry"]},
        "env": {"CLUSTER_POOL_FORWARDED_ALLOW_IPS": "10.0.0.0/8", "CLUSTER_POOL_COMPRESSION": "1"},
        "service": {"type": "LoadBalancer", "annotations": {"example/a": "b"}},
        "resources": {"requests": {"cpu": "500m"}},
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "nodeSelector": {"disk": "none"},
        "tolerations": [{"key": "only", "operator": "Exists"}],
        "podAnnotations": {"example/c": "d"},
        "volumes": [{"name": "keys", "secret": {"secretName": "jwt"}}],
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}],
    }
    file, made = tmp_path / "values.yaml", tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(values))
    resources = by_kind(rendered("--values", str(file)))
    assert checked_time(resources) == 310
    assert settings(pod_of(resources)[1])["compression"] is True
    assert resources["Deployment"]["spec"]["replicas"] == 3
    (endpoint,) = resources.pop("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"]["key"] in OF_THE_SECRET
    made.write_text(yaml.safe_dump_all(resources.values()))
    done = subprocess.run(["kubernetes-validate", "--strict", made], capture_output=True)
    assert done.returncode == 0, done.stdout


@needs_helm
@pytest.mark.parametrize("wrong", ["grace=soon", "replica=3", "env.CLUSTER_POOL_PORT=1"])
def test_wrong_values_are_refused(wrong: str) -> None:
    """By the schema of the values: a text for a number, an unknown name, a number for a text."""
    done = helm("template", NAME, CHART, "--set", wrong)
    assert done.returncode != 0
    assert wrong.partition("=")[0].rpartition(".")[2] in done.stderr
