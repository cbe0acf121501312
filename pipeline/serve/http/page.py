"""The page at /docs: every route, with an example that this model takes. It works offline.

Names of columns, classes and targets are anybody's: they are escaped, in HTML and in the Markdown
that the page reads, and the browser is told to run no script but the two of this server.
"""

import html
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from pipeline.serve.bundle import Bundle
from pipeline.serve.codec.signature import Signature, example_row
from pipeline.serve.codec.tensors import DTYPES, TYPES
from pipeline.serve.protocol import describe
from pipeline.serve.service import Service
from stages.features.kind import kind_of
from stages.features.spelling import as_markdown

Schema = dict[str, object]
_REFUSALS = {
    "400": "no JSON, or not what the protocol says",
    "413": "too many bytes or rows",
    "422": "a row that the model can't be given: `details` names row, column and what is allowed",
    "503": "too much is waiting: try again after `Retry-After` seconds",
    "504": "no answer in time",
}


# Relative addresses: the server may stand behind a proxy, under a path.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<title>{title}</title>
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# By default the page would show a badge of a validator on the web, and send it this address.
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  deepLinking: true,
  defaultModelsExpandDepth: -1,
  tryItOutEnabled: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
# The page styles its elements one by one, and its icons are data.
_POLICY = "; ".join(
    [
        *("default-src 'none'", "script-src 'self'", "connect-src 'self'"),
        *("style-src 'self' 'unsafe-inline'", "img-src 'self' data:"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    ]
)


def add_page(app: FastAPI, service: Service) -> None:
    """Add /docs, /openapi.json and what the page loads, all from this server."""
    assets = files("fastapi_offline") / "static"
    app.mount("/docs/assets", StaticFiles(directory=str(assets)), name="assets")

    async def openapi() -> Response:
        return JSONResponse(describe_routes(app, service))

    async def page() -> Response:
        title = html.escape(f"{service.settings.name}: {service.bundle.signature.target}")
        headers = {"Content-Security-Policy": _POLICY}
        return HTMLResponse(_PAGE.format(title=title), headers=headers)

    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    async def root() -> Response:
        return RedirectResponse("docs")

    app.get("/openapi.json", include_in_schema=False)(openapi)
    app.get("/docs", include_in_schema=False)(page)
    app.get("/docs/start.js", include_in_schema=False)(start)
    app.get("/", include_in_schema=False)(root)


def describe_routes(app: FastAPI, service: Service) -> Schema:
    """The OpenAPI description with the schema of this model's rows."""
    bundle, settings = service.bundle, service.settings
    described: Schema = get_openapi(
        title=f"Reprise: {bundle.signature.target}",
        version=bundle.version[:12],
        summary=_summary(bundle.signature),
        routes=app.routes,
    )
    paths = described["paths"]
    assert isinstance(paths, dict)
    described["paths"] = {
        "/predict": {"post": _predict(bundle)},
        f"/v2/models/{settings.name}/infer": {"post": _infer(bundle, settings.name)},
        # The server has one model: its name is filled in. Its version may stand there too.
        **{
            path.replace("{name}", settings.name): _bare(operations)
            for path, operations in paths.items()
            if "{version}" not in path
        },
    }
    if settings.token is not None:
        described["components"] = {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}
        }
        described["security"] = [{"token": []}]
    return described


def _bare(operations: Schema) -> Schema:
    """Without parameters: those of the path are filled in, and there are no others."""
    return {
        method: {key: value for key, value in operation.items() if key != "parameters"}
        for method, operation in operations.items()
        if isinstance(operation, dict)
    }


def _summary(signature: Signature) -> str:
    columns = f"{len(signature.inputs)} column{'s' if len(signature.inputs) != 1 else ''}"
    return f"{signature.task} of '{signature.target}' from {columns}"


def _predict(bundle: Bundle) -> Schema:
    signature = bundle.signature
    row: Schema = {
        "type": "object",
        "required": [each.column for each in signature.inputs],
        "properties": {
            each.column: kind_of(each.kind).json_type(each) for each in signature.inputs
        },
    }
    if signature.key is not None:
        properties = row["properties"]
        assert isinstance(properties, dict)
        properties[signature.key] = {"description": "Names the row; given back with the answer."}
    rows: Schema = {"type": "array", "minItems": 1, "items": row}
    schema: Schema = {"type": "object", "required": ["rows"], "properties": {"rows": rows}}
    example = {"rows": [example_row(signature)]}
    operation = _operation(
        "Predict rows",
        "Rows by column name; a gap is `null`; other columns are ignored. An image is an array, or "
        "a file's bytes in base64; or send a form with a part for each column, of an image a file.",
        "rows",
        schema,
        example,
    )
    if signature.image_columns:
        body = operation["requestBody"]
        assert isinstance(body, dict)
        body["content"]["multipart/form-data"] = {"schema": _form(signature)}
    return operation


def _form(signature: Signature) -> Schema:
    """A form of one row: files for images, and texts."""
    file: Schema = {"type": "string", "format": "binary"}
    properties = {
        each.column: file if each.kind == "image" else {"type": "string"}
        for each in signature.inputs
    }
    return {"type": "object", "required": [*properties], "properties": properties}


def _infer(bundle: Bundle, name: str) -> Schema:
    inputs = describe(bundle, name)["inputs"]
    assert isinstance(inputs, list)
    feeds = bundle.encode([example_row(bundle.signature)])
    example = {
        "inputs": [
            {**each, "shape": [1, *each["shape"][1:]], "data": feeds[column.name].ravel().tolist()}
            for each, column in zip(inputs, bundle.signature.inputs, strict=True)
        ]
    }
    tensor: Schema = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"enum": [each["name"] for each in inputs]},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"enum": [*DTYPES, "BYTES"]},
            "data": {"type": "array", "items": {}},
        },
    }
    schema: Schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"enum": [each.name for each in bundle.signature.outputs]}
                    },
                },
            },
        },
    }
    outputs = ", ".join(f"{each.name} ({TYPES[each.type]})" for each in bundle.signature.outputs)
    known = "Open Inference Protocol v2; the binary tensor extension too."
    text = f"{known} Outputs: {as_markdown(outputs)}."
    return _operation("Infer from tensors", text, "protocol", schema, example)


def _operation(summary: str, description: str, tag: str, schema: Schema, example: object) -> Schema:
    body = {"application/json": {"schema": schema, "example": example}}
    return {
        "summary": summary,
        "description": description,
        "tags": [tag],
        "requestBody": {"required": True, "content": body},
        "responses": {
            "200": {"description": "predictions", "content": {"application/json": {}}},
            **{status: {"description": reason} for status, reason in _REFUSALS.items()},
        },
    }
