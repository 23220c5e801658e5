"""The reference: every operation and schema of the OpenAPI document as one HTML page, without scripts."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from taskflow_api.pages.schemas import code, examples_of, fields_of, limits_of, line, prose, table, type_of

_FIRST_ERROR = 400


def reference(document: Mapping[str, Any]) -> str:
    """The body of the page."""
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation.get("tags", ["other"])[0], []).append((method, path, operation))
    schemas = document.get("components", {}).get("schemas", {})
    return "".join(
        (
            _heading(document),
            _contents(by_tag),
            *(part for tag, operations in by_tag.items() for part in _section(tag, operations, schemas)),
            '<h2 id="schemas">Schemas</h2><p>A star marks what is required, or always there.</p>',
            *(_schema(name, schema) for name, schema in sorted(schemas.items())),
        )
    )


def _heading(document: Mapping[str, Any]) -> str:
    info = document["info"]
    schemes = document.get("components", {}).get("securitySchemes", {})
    tokens = "".join(
        f"<p>{code('Authorization: Bearer TOKEN')}: {line(each['description'])}</p>" for each in schemes.values()
    )
    return (
        f"<h1>{html.escape(info['title'])} REST API <small>{html.escape(info['version'])}</small></h1>"
        f"{prose(info.get('description', ''))}{tokens}"
        '<p>For programs: <a href="openapi.json">the OpenAPI document</a>. <a href=".">What this is</a>.</p>'
    )


def _contents(by_tag: Mapping[str, list[tuple[str, str, Mapping[str, Any]]]]) -> str:
    parts = []
    for tag, operations in by_tag.items():
        links = "".join(
            f'<li><a href="#{html.escape(each["operationId"])}">{line(each["summary"])}</a></li>'
            for _, _, each in operations
        )
        parts.append(f'<h3><a href="#tag-{html.escape(tag)}">{html.escape(tag)}</a></h3><ul>{links}</ul>')
    return f'<nav aria-label="Contents">{"".join(parts)}<h3><a href="#schemas">schemas</a></h3></nav>'


def _section(
    tag: str, operations: list[tuple[str, str, Mapping[str, Any]]], schemas: Mapping[str, Any]
) -> Iterator[str]:
    yield f'<h2 id="tag-{html.escape(tag)}">{html.escape(tag)}</h2>'
    for method, path, operation in operations:
        yield _operation(method, path, operation, schemas)


def _operation(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    parameters = [
        (
            code(each["name"]) + (" *" if each.get("required") else ""),
            html.escape(each["in"]),
            type_of(each["schema"]),
            " ".join(filter(None, (line(each.get("description", "")), limits_of(each["schema"])))),
        )
        for each in operation.get("parameters", ())
    ]
    open_to_all = "" if operation.get("security") else "<p>Needs no token.</p>"
    return (
        f'<article id="{html.escape(operation["operationId"])}"><h3>{line(operation["summary"])}</h3>'
        f'<p><code><span class="method">{html.escape(method.upper())}</span> {html.escape(path)}</code></p>'
        f"{prose(operation.get('description', ''))}{open_to_all}"
        f"{table(('parameter', 'in', 'type', ''), parameters)}"
        f"{_body(operation.get('requestBody'), schemas)}"
        f"<h4>Answers</h4>{_answers(operation.get('responses', {}))}</article>"
    )


def _body(body: Mapping[str, Any] | None, schemas: Mapping[str, Any]) -> str:
    if body is None:
        return ""
    parts = []
    for media_type, content in body["content"].items():
        schema = content["schema"]
        names = [each["$ref"].rpartition("/")[2] for each in (schema, *schema.get("anyOf", ())) if "$ref" in each]
        examples = "".join(examples_of(schemas.get(name, {})) for name in names)
        parts.append(f"<p>{code(media_type)}: {type_of(schema)}</p>{examples}")
    return f"<h4>Body</h4>{''.join(parts)}"


def _answers(responses: Mapping[str, Any]) -> str:
    """One row each for what succeeds, and one for all problems, which look alike."""
    rows = []
    problems = []
    for status, response in sorted(responses.items()):
        kinds = response.get("content", {})
        if int(status) >= _FIRST_ERROR and "application/problem+json" in kinds:
            problems.append(status)
            continue
        content = ", ".join(
            f"{code(media_type)} {type_of(each['schema'])}" if "schema" in each else code(media_type)
            for media_type, each in kinds.items()
        )
        rows.append((code(status), content, line(response["description"])))
    if problems:
        rows.append((" ".join(map(code, problems)), '<a href="#schema-Problem">Problem</a>', ""))
    return table(("status", "content", ""), rows)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    return (
        f'<article id="schema-{html.escape(name)}"><h3>{html.escape(name)}</h3>'
        f"{prose(schema.get('description', ''))}{fields_of(schema)}{examples_of(schema)}</article>"
    )
