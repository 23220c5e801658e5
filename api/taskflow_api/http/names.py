"""The syntax of Kubernetes and handler names, and the path parameters that carry them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.convertors import StringConvertor, register_url_convertor

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_NAME = rf"{LABEL}(\.{LABEL})*"
HANDLER = r"^[A-Za-z_][A-Za-z0-9_.:-]*$"
MAX_LABEL_CHARS, MAX_NAME_CHARS = 63, 253

TASKS = "/v1/namespaces/{namespace}/tasks"
"""Path of the Tasks of a namespace."""
TASK = TASKS + "/{name:part}"
"""Path of one Task."""

Namespace = Annotated[str, Path(max_length=MAX_LABEL_CHARS, pattern=f"^{LABEL}$", description="A DNS label.")]
Name = Annotated[str, Path(max_length=MAX_NAME_CHARS, pattern=f"^{DNS_NAME}$", description="A DNS name.")]


class _Part(StringConvertor):
    """A path segment up to a colon: in `NAME:cancel`, `cancel` is an action and not part of the name."""

    regex = "[^/:]+"


register_url_convertor("part", _Part())
