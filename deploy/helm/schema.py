"""Make `values.schema.json` of the chart: `python deploy/helm/schema.py [--check]`.

What stands under `orchestrator.config`, `detection.config` and `recognition.config` is taken from the configuration
models of the servers, so that the chart accepts just what they do. The rest is written below. draft-07, since that is
what helm 3 understands.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sluiceway_detection.config import DetectionConfig
from sluiceway_orchestrator.config import OrchestratorConfig
from sluiceway_orchestrator.config.http import HttpConfig
from sluiceway_recognition.config import RecognitionConfig
from sluiceway_runtime.config import STAGE_KINDS, ServerConfig, StageConfig
from sluiceway_runtime.weights.registry import load_registry

Schema = dict[str, Any]

TARGET = Path(__file__).parent / "sluiceway" / "values.schema.json"
MODELS: dict[str, type[ServerConfig]] = {
    "orchestrator": OrchestratorConfig,
    "detection": DetectionConfig,
    "recognition": RecognitionConfig,
}
# The chart sets these itself, from values of their own or because pods depend on them.
OF_THE_CHART = {"host", "port", "operations_port", "drain_grace_s"}
# Its services lead to gRPC, and to the HTTP port of the orchestrator.
OF_A_STAGE = {"workers", "goal", "device", "cpus", "http"}
OF_THE_ORCHESTRATOR = {"detection", "recognition", "http", "scaler"}
OF_THE_HTTP_PORT = {"host", "port"}

# Lists whose items the models also take as plain text, which their schemas do not tell: "480x640", the name of a model.
SHORT_FORMS = {"detection": ("shapes",), "recognition": ("models",)}

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
# Left to Kubernetes, which checks them when they are applied.
ANY_OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
NAMED_OBJECTS: Schema = {"type": "array", "items": {"type": "object", "required": ["name"]}}
STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
# A whole name: the HTTP port compares names and knows no patterns.
HOST: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
DIGEST: Schema = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
# The chart selects pods by these.
LABELS: Schema = STRINGS | {
    "propertyNames": {"not": {"pattern": r"^app\.kubernetes\.io/(name|instance|component)$|^sluiceway\.dev/variant$"}}
}
# Over others that the chart writes on every object.
COMMON_LABELS: Schema = STRINGS | {
    "propertyNames": {"not": {"pattern": r"^(app\.kubernetes\.io|helm\.sh)/|^sluiceway\.dev/variant$"}}
}


def integer(minimum: int, maximum: int | None = None) -> Schema:
    """A whole number."""
    return {"type": "integer", "minimum": minimum} | ({} if maximum is None else {"maximum": maximum})


def table(**properties: Schema) -> Schema:
    """An object with these keys and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def simplified(node: Any, definitions: Schema) -> Any:
    """Return a model's schema in draft-07: no references, and alternatives merged where types tell them apart.

    Merged, because of an alternative that fails helm says only that none matches, not what is wrong.
    """
    if isinstance(node, list):
        return [simplified(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return simplified(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    # Constraints that another draft spells otherwise, and words that only a generator of forms reads.
    kept = {key: value for key, value in node.items() if key not in ("title", "default", "format", "discriminator")}
    # A bound on alternatives of which some have no order is passed on under pydantic's own name.
    for own, standard in (("ge", "minimum"), ("le", "maximum")):
        if own in kept:
            kept[standard] = kept.pop(own)
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    if "prefixItems" in kept:
        kept["items"] = kept.pop("prefixItems")
        kept["additionalItems"] = False
    if "anyOf" in kept:
        choices = [choice for choice in kept.pop("anyOf") if choice.get("type") != "null"]
        kept |= merged([simplified(choice, definitions) for choice in choices])
    for key in ("properties", "patternProperties"):
        if key in kept:
            kept[key] = {name: simplified(value, definitions) for name, value in kept[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict | list):
            kept[key] = simplified(kept[key], definitions)
    return kept


def merged(choices: list[Schema]) -> Schema:
    """Return one schema for alternatives of different types; `anyOf` where types alone do not decide."""
    types = [choice.get("type") for choice in choices]
    if len(choices) == 1:
        return choices[0]
    if None in types or len(set(types)) < len(types):
        return {"anyOf": choices}
    result: Schema = {"type": types}
    for choice in choices:
        for key, value in choice.items():
            if key == "enum":
                # A pattern, since an enum would bind the other types as well.
                result["pattern"] = f"^({'|'.join(value)})$"
            elif key not in ("type", "description"):
                result[key] = value
    return result


def name_or_path(kind: str) -> Schema:
    """What names weights: a name of the registry for this kind, or a path, which has a slash or a suffix."""
    names = "|".join(sorted(name for name, entry in load_registry().models.items() if entry.kind == kind))
    return {"pattern": f"^({names}|.*[/.].*)$"}


def with_known_models(section: str, properties: Schema) -> None:
    """Let a name that no release has fail before pods do."""
    known = name_or_path(section) if section in STAGE_KINDS else {}
    if section == "detection":
        properties["model"] |= known
    elif section == "recognition":
        # A plain name stands for weights, and so does the name of a table that says nothing else of them.
        item = properties["models"]["items"]
        item["properties"]["weights"] |= known
        item |= known
        item["if"] = {
            "type": "object",
            "not": {"anyOf": [{"required": ["weights"]}, {"required": ["recognizer"]}]},
        }
        item["then"] = {"properties": {"name": known}}


def settings(section: str, without: set[str]) -> Schema:
    """Keys of one section of sluiceway.toml."""
    schema = MODELS[section].model_json_schema()
    simple: Schema = simplified(schema, schema.get("$defs", {}))
    properties = {key: value for key, value in simple["properties"].items() if key not in without}
    for key in SHORT_FORMS.get(section, ()):
        properties[key]["items"]["type"] = [properties[key]["items"]["type"], "string"]
    with_known_models(section, properties)
    return {
        "type": "object",
        "description": f"Keys of [{section}].",
        "properties": properties,
        "additionalProperties": False,
    }


def http_port() -> Schema:
    """Keys of [orchestrator.http], but for where it listens."""
    whole: Schema = simplified(HttpConfig.model_json_schema(), {})
    properties = {key: value for key, value in whole["properties"].items() if key not in OF_THE_HTTP_PORT}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def component(*, without: set[str], section: str, scaling: Schema, **more: Schema) -> Schema:
    """What the orchestrator and the stages have in common."""
    return table(
        image=STRING,
        replicas=integer(0),
        config=settings(section, OF_THE_CHART | without),
        env=OBJECTS,
        envFrom=OBJECTS,
        resources=table(requests=ANY_OBJECT, limits=ANY_OBJECT),
        autoscaling=scaling,
        podDisruptionBudget=table(
            enabled=BOOLEAN,
            maxUnavailable={"type": ["integer", "string"], "minimum": 1, "pattern": "^[1-9][0-9]?%$|^100%$"},
        ),
        nodeSelector=STRINGS,
        tolerations=OBJECTS,
        affinity=ANY_OBJECT,
        digest=DIGEST,
        podAnnotations=STRINGS,
        podLabels=LABELS,
        extraVolumes=NAMED_OBJECTS,
        volumeMounts={"type": "array", "items": {"type": "object", "required": ["name", "mountPath"]}},
        initContainers=NAMED_OBJECTS,
        sidecars=NAMED_OBJECTS,
        podPatch=ANY_OBJECT,
        containerPatch=ANY_OBJECT,
        priorityClassName=STRING,
        **more,
    )


def scaling(minimum: int, **more: Schema) -> Schema:
    """What autoscalers have in common."""
    return table(
        enabled=BOOLEAN,
        minReplicas=integer(minimum),
        maxReplicas=integer(1),
        cpuPercent=integer(0, 1000),
        behavior=ANY_OBJECT,
        **more,
    )


def stage(section: str) -> Schema:
    """A stage: a component with workers, devices and variants."""
    own = StageConfig.model_json_schema()["properties"]
    queue = table(
        enabled=BOOLEAN,
        targetSeconds={"type": "number", "minimum": 0.001},
        source={"enum": ["orchestrator", "prometheus"]},
        externalMetric={"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"},
    )
    variant = table(
        name=NAME,
        share=integer(1, 90),
        image=STRING,
        tag=STRING,
        digest=DIGEST,
        config=settings(section, OF_THE_CHART | OF_A_STAGE),
    )
    return component(
        section=section,
        without=OF_A_STAGE,
        scaling=scaling(
            0,
            engine={"enum": ["auto", "hpa", "keda"]},
            queueTime=queue,
            fallback=table(failureThreshold=integer(1), replicas=integer(1)),
        ),
        workers=simplified(own["workers"], {}),
        goal=simplified(own["goal"], {}),
        device=simplified(own["device"], {}),
        gpu=table(
            count=integer(0, 64),
            resource={"type": "string", "minLength": 1},
            cache=table(claimName=STRING, sizeLimit=STRING),
            startupSeconds=integer(2, 7200),
        ),
        modelVolume=ANY_OBJECT,
        variants={"type": "array", "items": variant | {"required": ["name", "share"]}},
    )


def named_stages() -> Schema:
    """Stages by name: the keys of their kind, and the kind itself."""
    kinds = {kind: stage(kind) for kind in STAGE_KINDS}
    taken = {
        kind: schema | {"properties": {"kind": {"enum": [kind]}, **schema["properties"]}}
        for kind, schema in kinds.items()
    }
    first, second = STAGE_KINDS
    return {
        "type": "object",
        # It becomes part of the names of objects, which have 63 characters, and of environment variables.
        "propertyNames": {
            "pattern": "^[a-z][a-z0-9]*(_[a-z0-9]+)*$",
            "maxLength": 22,
            "not": {"enum": ["orchestrator", *STAGE_KINDS]},
        },
        "additionalProperties": {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": list(STAGE_KINDS)}},
            "if": {"properties": {"kind": {"enum": [first]}}},
            "then": taken[first],
            "else": taken[second],
        },
    }


def values() -> Schema:
    """The whole schema."""
    secret = table(secretName=STRING, key=STRING)
    client = table(
        secretName=STRING,
        key=STRING,
        rate_per_s={"type": "number", "exclusiveMinimum": 0},
        max_concurrent=integer(1),
    )
    ingress = table(
        enabled=BOOLEAN,
        className=STRING,
        annotations=STRINGS,
        hosts={"type": "array", "items": HOST},
        tlsSecretName=STRING,
    )
    whole = table(
        nameOverride=STRING,
        fullnameOverride=STRING,
        image=table(
            registry=STRING,
            tag=STRING,
            pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
            pullSecrets={"type": "array", "items": STRING},
        ),
        commonLabels=COMMON_LABELS,
        serviceAccount=table(create=BOOLEAN, name=STRING, annotations=STRINGS),
        podSecurityContext=ANY_OBJECT,
        containerSecurityContext=ANY_OBJECT,
        podPatch=ANY_OBJECT,
        containerPatch=ANY_OBJECT,
        extraObjects={"type": "array", "items": {"type": "object", "required": ["apiVersion", "kind", "metadata"]}},
        config=STRING,
        drain=table(preStopSeconds=integer(0, 300), graceSeconds=integer(1, 3600)),
        startupSeconds=integer(2, 3600),
        orchestrator=component(
            section="orchestrator",
            without=OF_THE_ORCHESTRATOR,
            scaling=scaling(1),
            service=table(
                type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, annotations=STRINGS, patch=ANY_OBJECT
            ),
            http=http_port(),
            ingress=ingress,
            grpcIngress=ingress,
            grpcRoute=table(
                enabled=BOOLEAN,
                annotations=STRINGS,
                parentRefs=NAMED_OBJECTS,
                hostnames={"type": "array", "items": STRING},
            ),
        ),
        detection=stage("detection"),
        recognition=stage("recognition"),
        stages=named_stages(),
        stageDefaults=table(**{kind: stage(kind) for kind in STAGE_KINDS}),
        security=table(
            tls=table(secretName=STRING),
            clients={
                "type": "object",
                # It becomes part of the names of environment variables.
                "propertyNames": {"pattern": "^[a-z][a-z0-9]*(_[a-z0-9]+)*$"},
                "additionalProperties": client | {"required": ["secretName", "key"]},
            },
            stageToken=secret | {"dependencies": {"secretName": ["key"], "key": ["secretName"]}},
            allowUnauthenticated=BOOLEAN,
        ),
        networkPolicy=table(
            enabled=BOOLEAN,
            clients=OBJECTS,
            monitoring=OBJECTS,
            scalers=OBJECTS,
            publicEgress=BOOLEAN,
            orchestratorEgress=OBJECTS,
            stageEgress=OBJECTS,
        ),
        monitoring=table(
            podMonitor=table(
                enabled=BOOLEAN, interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"}, labels=STRINGS
            ),
            rules=table(enabled=BOOLEAN, labels=STRINGS),
            dashboard=table(enabled=BOOLEAN, labels=STRINGS),
            adapterRules=table(enabled=BOOLEAN, namespace=STRING),
            annotations=BOOLEAN,
            prometheus=table(address={"type": "string", "pattern": "^https?://"}, matchers=STRING),
        ),
        # Helm gives every chart this one.
        **{"global": ANY_OBJECT},
    )
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the Sluiceway chart", **whole}


def main() -> int:
    """Write or check the file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only tell whether the file is current")
    text = json.dumps(values(), indent=2, ensure_ascii=False) + "\n"
    if parser.parse_args().check:
        current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == text
        print("current" if current else f"{TARGET.name} is not current: run deploy/helm/schema.py")
        return 0 if current else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
