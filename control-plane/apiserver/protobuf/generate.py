#!/usr/bin/env python3
"""Makes fields.txt: the numbers and types of the fields of Kubernetes' protobuf messages.

Usage: generate.py PATH/TO/k8s-pb/src ../../api/openapi/schemas.json > fields.txt

k8s-pb (kube-rs' bindings) has the numbers, the OpenAPI schemas have the JSON names. A line is a message's name and its
fields, `number:name:type`. Types are s(tring), i(nteger), b(oolean), d(ouble), y (bytes) and m@message, after `*` for
lists and `=` for maps from strings; `<` instead of a name puts the message's fields in the place of the field.
"""

import json
import pathlib
import re
import sys

STRUCT = re.compile(r"pub struct (\w+) \{(.*?)\n\}", re.S)
FIELD = re.compile(r"#\[prost\((.*?)\)\]\s*pub (?:r#)?(\w+):\s*(.*?),\s*\n(?=\s*(?:///|#\[|$))", re.S)
SCALARS = {"string": "s", "int32": "i", "int64": "i", "bool": "b", "double": "d", "bytes": "y"}
WRAPPERS = re.compile(r"::core::option::Option|::prost::alloc::(vec::Vec|boxed::Box|collections::BTreeMap|string::String)|[<>\s]")


def short(name):
    return name.removeprefix("io.k8s.api.").removeprefix("io.k8s.apimachinery.pkg.")


def read(folder):
    """Message name (lower case, dotted) to its fields: attributes, name, type's path."""
    messages = {}
    for file in pathlib.Path(folder).rglob("mod.rs"):
        module = list(file.relative_to(folder).parent.parts)
        text = "\n".join(line for line in file.read_text().splitlines() if "///" not in line and "#[serde" not in line)
        for name, body in STRUCT.findall(text):
            fields = []
            for attributes, field, type_ in FIELD.findall(body + "\n"):
                parts = [part for part in WRAPPERS.sub("", type_).split(",") if part]
                path = parts[-1].split("::") if parts else []
                base = list(module)
                while path and path[0] == "super":
                    path.pop(0)
                    base.pop()
                fields.append((attributes, field, ".".join(base + path)))
            messages[".".join(module + [name]).lower()] = fields
    return messages


def type_of(attributes, target):
    kind = attributes.split(",")[0].split(" ")[0]
    if kind == "btree_map":
        value = re.search(r'"string, (\w+)"', attributes)[1]
        return "=" + (SCALARS.get(value) or "m@" + target)
    code = SCALARS.get(kind) or "m@" + target
    return ("*" if "repeated" in attributes else "") + code


def main():
    messages, schemas = read(sys.argv[1]), json.load(open(sys.argv[2]))
    by_lower = {name.removeprefix("io.k8s.").lower(): name for name in schemas}
    todo = [(name.removeprefix("io.k8s.").lower(), name, schemas[name]) for name in schemas]
    done = {}
    while todo:
        lower, name, schema = todo.pop()
        if name in done or lower not in messages:
            continue
        properties = {field.lower(): field for field in schema.get("properties", {})}
        fields = []
        for attributes, field, target in messages[lower]:
            number = re.search(r'tag = "(\d+)"', attributes)[1]
            json_name = properties.get(field.replace("_", ""), "<")
            known = by_lower.get(target.lower())
            type_name = known or "io.k8s." + target
            if json_name == "<":
                if not attributes.startswith("message"):
                    continue
                if known is None:
                    # The schemas have the fields of such a message in the message that holds it.
                    todo.append((target.lower(), type_name, schema))
            fields.append(f"{number}:{json_name}:{type_of(attributes, short(type_name))}")
        done[name] = f"{short(name)} {' '.join(fields)}"
    print("\n".join(done[name] for name in sorted(done)))


main()
