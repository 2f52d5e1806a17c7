#!/usr/bin/env python3
"""Makes schemas.json: the OpenAPI schemas of the kinds that the registry serves.

Usage: generate.py PATH/TO/k8s-openapi/src/v1_35 > schemas.json

The crate's `schemars` feature holds the same data as code, which would cost every build minutes and the binary
megabytes. Its generated sources are regular enough to be read as text.
"""

import json
import pathlib
import re
import sys

ROOTS = """
    api/core/v1: Binding ConfigMap Endpoints Event Namespace Node PersistentVolume PersistentVolumeClaim Pod ReplicationController Secret Service
        ServiceAccount
    api/apps/v1: ControllerRevision Deployment ReplicaSet StatefulSet
    api/authentication/v1: SelfSubjectReview TokenRequest TokenReview
    api/authorization/v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
    api/autoscaling/v1: Scale
    api/coordination/v1: Lease
    api/discovery/v1: EndpointSlice
    api/events/v1: Event
    api/networking/v1: Ingress IngressClass NetworkPolicy
    api/policy/v1: Eviction
    api/scheduling/v1: PriorityClass
    api/storage/v1: StorageClass
    apimachinery/pkg/apis/meta/v1: DeleteOptions ListMeta Status
"""

IMPL = re.compile(
    r"impl crate::schemars::JsonSchema for (\w+) \{.*?\"(io\.k8s\.[\w.]+)\"\.into\(\)"
    r".*?json_schema!\((\{.*?\n        \})\)\n",
    re.S,
)
DESCRIBED = re.compile(
    r"\(\{\s*let mut schema_obj = __gen\.subschema_for::<crate::([\w:]+)>\(\);\s*"
    r"schema_obj\.ensure_object\(\)\.insert\(\"description\"\.into\(\), (\"(?:[^\"\\]|\\.)*\")\.into\(\)\);\s*"
    r"schema_obj\s*\}\)",
    re.S,
)
PLAIN = re.compile(r"\(?__gen\.subschema_for::<crate::([\w:]+)>\(\)\)?")


def name_of(path):
    """crate::api::core::v1::Pod is io.k8s.api.core.v1.Pod."""
    return "io.k8s." + path.replace("::", ".")


def roots():
    names = []
    for word in ROOTS.split():
        if word.endswith(":"):
            package = "io.k8s." + word[:-1].replace("/", ".")
        else:
            names.append(f"{package}.{word}")
    return names


def read(folder):
    schemas = {}
    for file in sorted(pathlib.Path(folder).rglob("*.rs")):
        for _, name, text in IMPL.findall(file.read_text()):
            text = DESCRIBED.sub(lambda m: '{"$ref": "%s", "description": %s}' % (name_of(m[1]), m[2]), text)
            text = PLAIN.sub(lambda m: '{"$ref": "%s"}' % name_of(m[1]), text)
            text = re.sub(r",(\s*[}\]])", r"\1", text)
            schemas[name] = json.loads(re.sub(r"\\u\{(\w+)\}", lambda m: "\\u%04x" % int(m[1], 16), text))
    return schemas


def references(schema):
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def reachable(schemas):
    found, todo = {}, roots()
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = schemas[name]
            todo.extend(references(schemas[name]))
    return found


def relaxed(name, schema):
    """Kubernetes requires no metadata in objects, the crate does because its field is no Option."""
    properties = schema.get("properties", {})
    if "kind" in properties and "required" in schema:
        required = [field for field in schema["required"] if field != "metadata"]
        schema = {**schema, "required": required}
        if not required:
            del schema["required"]
    if name.endswith(".IntOrString"):
        schema = {"description": schema["description"], "type": "string", "format": "int-or-string"}
    if name.endswith(".Quantity"):
        schema = {"description": schema["description"].split("\n")[0], "type": "string"}
    return schema


def main():
    found = reachable(read(sys.argv[1]))
    lines = [
        f"{json.dumps(name)}:{json.dumps(relaxed(name, found[name]), sort_keys=True, separators=(',', ':'))}"
        for name in sorted(found)
    ]
    print("{\n" + ",\n".join(lines) + "\n}")


main()
