"""The fields of the kinds in deploy/kubernetes, as far as they are used there.

Written down from the public documentation, since no cluster and no network is there to ask:
https://kubernetes.io/docs/reference/kubernetes-api/
https://nightlies.apache.org/flink/flink-kubernetes-operator-docs-stable/docs/custom-resource/reference/
"""

from __future__ import annotations

from typing import Any, Final

from tests.support.manifest_schema import Each, Needed, Pattern

NUMBER: Final = (int, float)
NAME: Final = Pattern(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABELS: Final = Each(Pattern(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"))
METADATA: Final = {"name": Needed(NAME), "labels": LABELS}
MEMORY: Final = Pattern(r"\d+(Mi|Gi)")
CPU: Final = Pattern(r"\d+m?")
IMAGE: Final = Pattern(r"[a-z0-9._/-]+:[A-Za-z0-9._-]+")

CONTAINER: Final[dict[str, Any]] = {
    "name": Needed(NAME),
    "image": IMAGE,
    "command": [str],
    "args": [str],
    "ports": [{"name": Pattern(r"[a-z0-9-]{1,15}"), "containerPort": Needed(int)}],
    "volumeMounts": [
        {"name": Needed(NAME), "mountPath": Needed(Pattern(r"/[^:]*")), "readOnly": bool}
    ],
    "resources": {
        "requests": {"cpu": CPU, "memory": MEMORY},
        "limits": {"cpu": CPU, "memory": MEMORY},
    },
    "readinessProbe": {"tcpSocket": Needed({"port": Needed(int)})},
}
POD: Final = {
    "containers": Needed([CONTAINER]),
    "volumes": [
        {"name": Needed(NAME), "persistentVolumeClaim": Needed({"claimName": Needed(NAME)})}
    ],
    "restartPolicy": Pattern("Always|OnFailure|Never"),
    "serviceAccountName": NAME,
    "securityContext": {"fsGroup": int},
}
POD_TEMPLATE: Final = {"metadata": {"labels": LABELS}, "spec": Needed(POD)}
SELECTOR: Final = {"matchLabels": Needed(LABELS)}

FLINK_POD_TEMPLATE: Final = {
    "apiVersion": Pattern("v1"),
    "kind": Pattern("Pod"),
    "metadata": METADATA,
    "spec": Needed(POD),
}
FLINK_RESOURCE: Final = {"memory": Needed(Pattern(r"\d+(m|g)")), "cpu": Needed(NUMBER)}


def of_kind(api_version: str, kind: str, spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": Needed(Pattern(api_version.replace(".", r"\."))),
        "kind": Needed(Pattern(kind)),
        "metadata": Needed(METADATA),
        "spec": Needed(spec),
    }


SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "FlinkDeployment": of_kind(
        "flink.apache.org/v1beta1",
        "FlinkDeployment",
        {
            "image": Needed(IMAGE),
            "flinkVersion": Needed(Pattern(r"v1_(1[6-9]|20)")),
            "mode": Pattern("native|standalone"),
            "serviceAccount": Needed(NAME),
            "flinkConfiguration": Each(str),
            "podTemplate": FLINK_POD_TEMPLATE,
            "jobManager": Needed({"replicas": int, "resource": Needed(FLINK_RESOURCE)}),
            "taskManager": Needed(
                {
                    "replicas": int,
                    "resource": Needed(FLINK_RESOURCE),
                    "podTemplate": FLINK_POD_TEMPLATE,
                }
            ),
        },
    ),
    "Deployment": of_kind(
        "apps/v1",
        "Deployment",
        {"replicas": int, "selector": Needed(SELECTOR), "template": Needed(POD_TEMPLATE)},
    ),
    "Service": of_kind(
        "v1",
        "Service",
        {
            "selector": LABELS,
            "ports": Needed([{"name": Needed(NAME), "port": Needed(int), "targetPort": int}]),
        },
    ),
    "NetworkPolicy": of_kind(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        {
            "podSelector": Needed(SELECTOR),
            "policyTypes": [Pattern("Ingress|Egress")],
            "ingress": [
                {
                    "from": [{"podSelector": SELECTOR}],
                    "ports": [{"protocol": Pattern("TCP|UDP|SCTP"), "port": int}],
                }
            ],
        },
    ),
    "Job": of_kind("batch/v1", "Job", {"backoffLimit": int, "template": Needed(POD_TEMPLATE)}),
    "PersistentVolumeClaim": of_kind(
        "v1",
        "PersistentVolumeClaim",
        {
            "accessModes": Needed([Pattern("ReadWriteOnce|ReadOnlyMany|ReadWriteMany")]),
            "storageClassName": str,
            "resources": Needed({"requests": Needed({"storage": Needed(MEMORY)})}),
        },
    ),
}
