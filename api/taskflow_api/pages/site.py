"""ASGI middleware that answers browsers at `/` and `/docs`. They need no token, and have nothing of an installation."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taskflow_api.pages.reference import reference

_STYLE = resources.files(__package__).joinpath("page.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
}
# An icon of its own, because browsers would ask for /favicon.ico.
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E"
    "%3Cpath d='M1 1h6v2H5v4H3V3H1z' fill='%23468'/%3E%3C/svg%3E"
)
_START = """\
<h1>TaskFlow REST API <small>{version}</small></h1>
<p>TaskFlow runs tasks on Kubernetes: each is a resource, and warm workers run it. Through this API, programs outside
the cluster create tasks, follow them while they run, read results, logs and files, and pause pools of workers.</p>
<ul>
<li><a href="docs">Reference</a>: every operation, its parameters, bodies and answers</li>
<li><a href="openapi.json">OpenAPI document</a>, for code generators and other programs</li>
<li><a href="version">Version</a>, <a href="readyz?verbose">readiness</a></li>
</ul>
<h2>The first request</h2>
<p>Everything under <code>/v1</code> needs a token. One of a Kubernetes ServiceAccount will do; its roles decide what it
may see and change. A browser sends none, so those addresses answer it with 401.</p>
<pre>TOKEN=$(kubectl create token ACCOUNT -n NAMESPACE)
curl -H "Authorization: Bearer $TOKEN" THIS-ADDRESS/v1/namespaces/NAMESPACE/tasks</pre>
"""


class Pages:
    """Answers a browser's GET of `/` and `/docs`; a request that does not accept HTML goes on.

    Args:
        app: The application behind it.
        document: Makes the OpenAPI document.
    """

    def __init__(self, app: ASGIApp, document: Callable[[], Mapping[str, Any]]) -> None:
        self._app = app
        self._document = document
        self._made: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in ("/", "/docs"):
            accepted = Headers(scope=scope).get("accept", "")
            if accepts_html(accepted):
                page = Response(self._page(scope["path"]), media_type="text/html", headers=_HEADERS)
                await page(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _page(self, path: str) -> str:
        if path not in self._made:
            document = self._document()
            if path == "/docs":
                body = reference(document)
            else:
                body = _START.format(version=html.escape(document["info"]["version"]))
            self._made[path] = page("TaskFlow REST API", body)
        return self._made[path]


def page(title: str, body: str) -> str:
    """A whole page around its body."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="{html.escape(_ICON)}"><style>{_STYLE}</style></head>\n<body>{body}</body></html>\n'
    )


def accepts_html(accept: str) -> bool:
    """Whether an Accept header names HTML, as browsers' do; `*/*` alone is a program's."""
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        if kind == "text/html":
            return not any(part.startswith("q=") and not part[2:].strip("0.") for part in parameters)
    return False
