"""Reads the REST API over a transport, and says in plain words what it refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from taskflow_cli.cluster.transport import Answer, Headers, Transport
from taskflow_cli.errors import CliError, Exit

_CODES: dict[int, Exit] = {
    HTTPStatus.BAD_REQUEST: Exit.INVALID,
    HTTPStatus.UNAUTHORIZED: Exit.NOT_ALLOWED,
    HTTPStatus.FORBIDDEN: Exit.NOT_ALLOWED,
    HTTPStatus.NOT_FOUND: Exit.NOT_FOUND,
    HTTPStatus.CONFLICT: Exit.CONFLICT,
    HTTPStatus.UNPROCESSABLE_ENTITY: Exit.INVALID,
    HTTPStatus.TOO_MANY_REQUESTS: Exit.UNREACHABLE,
}
_LOGIN = "the token is wrong, revoked or has expired; log in again with: taskflow login --server URL"


class Rest:
    """The REST API, seen from one namespace.

    Args:
        transport: Reaches it.
        namespace: The namespace of all requests.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.namespace = namespace

    def path(self, *parts: str, **query: Any) -> str:
        """A path within the namespace; parameters that are None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        whole = "/".join(quote(part, safe="") for part in ("v1", "namespaces", self.namespace, *parts))
        return f"/{whole}" + (f"?{urlencode(given)}" if given else "")

    def ask(self, path: str, what: str, more: Headers = ()) -> Answer:
        """GET a path.

        Args:
            path: As `path` makes it.
            what: What cannot be done if it is refused, e.g. `cannot read the log`.
            more: Further headers.

        Raises:
            CliError: it was refused, or no answer came.
        """
        answer = self._transport.request("GET", path, more=more)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(answer, what)
        return answer

    def read(self, path: str, what: str) -> dict[str, Any]:
        """GET a path that answers JSON.

        Raises:
            CliError: as `ask`; or the answer is no JSON.
        """
        answer = self.ask(path, what)
        try:
            return dict(json.loads(answer.body))
        except ValueError:
            raise CliError(what, "the answer is no JSON; is the server a REST API of TaskFlow?") from None

    def pages(self, *parts: str, what: str, after: str, following: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The items of all pages of a list.

        Args:
            parts: The path.
            what: As in `ask`.
            after: Name of the parameter that asks for the next page.
            following: Name of the field that says what to give there.
            query: Parameters of every page.

        Raises:
            CliError: as `read`.
        """
        position: dict[str, Any] = {}
        while True:
            page = self.read(self.path(*parts, **query, **position), what)
            yield from page["items"]
            if page.get(following) is None:
                return
            position = {after: page[following]}


def _refusal(answer: Answer, what: str) -> CliError:
    problem = _problem(answer)
    wrong = "; ".join(
        f"{each.get('pointer') or each.get('location')}: {each.get('detail')}" for each in problem.get("errors") or ()
    )
    code = _CODES.get(answer.status) or (
        Exit.UNREACHABLE if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else Exit.ERROR
    )
    hints = [_LOGIN] if answer.status == HTTPStatus.UNAUTHORIZED else []
    if request := problem.get("requestId") or answer.headers.get("x-request-id"):
        hints.append(f"the log of the API has it as request {request}")
    why = str(problem.get("detail") or problem.get("title") or f"the server answered {answer.status}")
    return CliError(what, f"{why}: {wrong}" if wrong else why, hint="\n".join(hints), code=code, status=answer.status)


def _problem(answer: Answer) -> Mapping[str, Any]:
    try:
        content = json.loads(answer.body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
