"""How schemathesis sends NDJSON, and what no request of it may ask for."""

import json

import schemathesis

NDJSON = "application/x-ndjson"


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """OpenAPI 3.1 can only call such a body a string; what a line of it is stands beside."""
    for path in raw_schema["paths"].values():
        for operation in path.values():
            content = operation.get("requestBody", {}).get("content", {})
            if NDJSON in content:
                line = content[NDJSON]["x-line-schema"]
                content[NDJSON]["schema"] = {"type": "array", "items": line}


@schemathesis.serializer(NDJSON)
def ndjson(ctx, value):
    """A list is lines; what is generated against the schema goes as it is."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        text = "\n".join(json.dumps(line) for line in value)
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


@schemathesis.hook
def before_call(context, case, kwargs):
    """A stream that is followed has no end, and a need may wait for ten minutes."""
    if isinstance(case.body, dict):
        if case.body.get("follow") is True:
            case.body["follow"] = False
        if isinstance(case.body.get("deadlineMs"), int):
            case.body["deadlineMs"] = 1
