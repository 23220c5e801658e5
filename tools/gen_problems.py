"""docs/reference/problems.md, from the kinds of problems of the REST API."""

from __future__ import annotations

from http import HTTPStatus

from taskflow_api.http.problem_types import PROBLEM_TYPES
from taskflow_api.http.problems import TYPE_PREFIX

INTRODUCTION = f"""# Problems

Every refusal of the REST API is `application/problem+json` (RFC 9457). Programs go by `type`, which is `{TYPE_PREFIX}` and one of these codes, or by `code`; `detail`
is for people, `errors` says what is wrong where, and `requestId` is in the server's log.

Written by `make gen`.
"""


def pages() -> dict[str, str]:
    """The page by its name."""
    parts = [INTRODUCTION]
    for code, problem in PROBLEM_TYPES.items():
        parts.append(
            f"\n## {code}\n\n{problem.status} {HTTPStatus(problem.status).phrase}. {problem.meaning}\n\n{problem.remedy}\n"
        )
    return {"problems": "".join(parts)}
