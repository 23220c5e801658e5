"""The pages for browsers: who gets them, that they are complete, and that they can load and run nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from taskflow_api.pages.site import accepts_html
from tests.unit.taskflow_api.fakes import Api

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Elements, ids and addresses of a page; fails if elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src"):
                self.addresses.append(str(value))
            assert not name.startswith("on")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_browser_gets_a_page_without_a_token(path: str) -> None:
    answer = await Api(register=True).call("GET", path, token="", accept=BROWSER)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = Page(answer.body.decode())
    inside = {each.removeprefix("#") for each in page.addresses if each.startswith("#")}
    assert inside <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    outside = {each for each in page.addresses if not each.startswith(("#", "data:image/svg+xml,"))}
    assert outside <= {".", "docs", "openapi.json", "version", "readyz?verbose"}
    assert "openapi.json" in outside
    head = await Api(register=True).call("HEAD", path, token="", accept=BROWSER)
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_may_load_run_and_send_nothing(path: str) -> None:
    answer = await Api().call("GET", path, token="", accept=BROWSER)
    text = answer.body.decode()
    assert Page(text).tags.isdisjoint({"script", "form", "iframe", "img", "object"})
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert answer.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["vary"] == "Accept"


async def test_the_reference_has_every_operation_parameter_field_and_schema() -> None:
    api = Api(register=True)
    text = (await api.call("GET", "/docs", token="", accept=BROWSER)).body.decode()
    document = api.app.openapi()
    ids = set(Page(text).ids)
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    assert {each["operationId"] for each in operations} <= ids
    schemas = document["components"]["schemas"]
    assert {f"schema-{name}" for name in schemas} <= ids
    names = {each["name"] for operation in operations for each in operation.get("parameters", ())}
    names |= {name for schema in schemas.values() for name in schema.get("properties", {})}
    assert [name for name in names if f"<code>{name}</code>" not in text] == []


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", "text/html;q=0, application/json"])
@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_programs_get_what_they_got(path: str, accept: str) -> None:
    for token, status in (("", 401), ("alice-token", 404)):
        answer = await Api().call("GET", path, token=token, accept=accept)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_other_addresses_are_no_pages_for_a_browser_either() -> None:
    for method, path in (
        ("POST", "/"),
        ("GET", "/docs/"),
        ("GET", "/index.html"),
        ("GET", "/v1/namespaces/team-a/tasks"),
    ):
        answer = await Api().call(method, path, token="", accept=BROWSER)
        assert answer.status == 401
        assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("TEXT/HTML", True),
        ("application/json, text/html;q=0.1", True),
        ("text/html;q=0.0", False),
        ("text/*", False),
        ("application/xhtml+xml", False),
    ],
)
def test_who_accepts_html(accept: str, html: bool) -> None:
    assert accepts_html(accept) is html
