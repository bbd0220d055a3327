"""The description of the control API, made from its table of routes.

Owns the OpenAPI document.  It is made when the door is, and not when it is asked for: an
upgrade may have exchanged the code by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from supervisor.control.requests import OrderRequest
from supervisor.control.routes import ROUTES, Route
from supervisor.control.steering import Fields

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "description": "what is wrong"},
        "hint": {"type": "string", "description": "what to do"},
        "instance": {"type": "string"},
    },
}
_STATUS_TEXTS = {
    "400": "The request is not valid.",
    "403": "Another user's process, or one that is let in for less.",
    "404": "No such path or kernel.",
    "405": "Not a method of this path.",
    "409": "The order was refused or came to nothing.",
    "413": "The body is larger than 1 MiB.",
    "422": "The configuration has mistakes.",
    "503": "Too many connections.",
}


def document(routes: Sequence[Route] = ROUTES) -> Fields:
    """The OpenAPI 3.1 document of these routes."""
    asked = sorted({route.asked for route in routes}, key=lambda struct: struct.__name__)
    _, schemas = msgspec.json.schema_components(asked, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kernel Supervisor control API",
            "version": "1",
            "description": "HTTP over the daemon's Unix socket. Every answer names the daemon's life "
            "in the header Kernel-Supervisor-Instance and the field `instance`.",
        },
        "servers": [{"url": "http://localhost", "description": "over the Unix socket"}],
        "paths": paths,
        "components": {"schemas": {**schemas, "Error": _ERROR}},
    }


def _operation(route: Route, schemas: dict[str, Any]) -> Fields:
    name = route.asked.__name__
    operation: Fields = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": _responses(route),
    }
    named = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    parameters = [named] if "{name}" in route.path else []
    properties = schemas[name].get("properties", {})
    if route.method == "GET":
        parameters += [_query_parameter(key, schema) for key, schema in properties.items()]
    elif properties:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        required = bool(schemas[name].get("required"))
        operation["requestBody"] = {"required": required, "content": content}
    return {**operation, **({"parameters": parameters} if parameters else {})}


def _query_parameter(key: str, schema: Fields) -> Fields:
    bare = {word: value for word, value in schema.items() if word != "description"}
    return {"name": key, "in": "query", "description": schema.get("description", ""), "schema": bare}


def _responses(route: Route) -> Fields:
    kind = "application/x-ndjson" if route.path == "/v1/events" else "application/json"
    done = {"description": "Done.", "content": {kind: {"schema": {"type": "object"}}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    codes = ["400", "403", "405", "413", "503"]
    if "{name}" in route.path:
        codes.append("404")
    if issubclass(route.asked, OrderRequest):
        codes.append("409")
    if route.path in {"/v1/reload", "/v1/plan"}:
        codes.append("422")
    told = {code: {"description": _STATUS_TEXTS[code], "content": error} for code in sorted(codes)}
    return {"202" if route.path in {"/v1/detach", "/v1/shutdown"} else "200": done, **told}
