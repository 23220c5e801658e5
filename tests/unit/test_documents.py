"""What the documents say that can be held against the code without a server. The commands:
tests/e2e/test_documents.py.
"""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime

import pytest

from taskflow_api.webhooks.secrets import new_secret, signed_headers
from taskflow_worker.sdk import Context, handler
from taskflow_worker.sdk.registry import REGISTRY
from taskflow_worker.sdk.testing import run
from tests.documents import ROOT, Block, Command, blocks, code, commands, pages, run_code

HANDLERS = "docs/howto/write-a-handler.md"
WEBHOOKS = "docs/howto/webhooks.md"
RETRIES = "docs/howto/retries-and-idempotency.md"
WAITING = "docs/howto/wait-and-poll.md"


@pytest.fixture(autouse=True)
def _a_registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers of documents do not stay: pages may use one name twice."""
    monkeypatch.setattr(REGISTRY, "_handlers", {})


def page_code(page: str, **given: object) -> dict[str, object]:
    """What all Python blocks of a page define, run in its order."""
    names: dict[str, object] = {"__name__": "page", **given}
    for block in code(page):
        run_code(block, names)
    return names


@pytest.mark.parametrize("page", [page for page in pages() if code(page)])
def test_python_of_a_page_compiles(page: str) -> None:
    for block in code(page):
        ast.parse(block.text, page)


def test_the_handler_of_the_readme_does_what_its_name_says() -> None:
    page_code("README.md")
    outcome = run("reports.lines", "tea", inputs={"log.txt": b"tea 1\ncoffee 2\ntea 3\n"}, outputs=["matches.txt"])
    assert outcome.result == 2
    assert outcome.outputs["matches.txt"] == b"tea 1\ntea 3\n"


def test_the_handler_of_the_howto_passes_the_test_of_the_howto() -> None:
    names = page_code(HANDLERS)
    test = names["test_rows_are_counted"]
    assert callable(test)
    test()


def test_the_handler_that_polls_passes_the_test_of_the_howto_and_ends_when_it_is_ready() -> None:
    ready: set[str] = set()
    names = page_code(
        WAITING, start_export=lambda customer: f"of-{customer}", is_ready=ready.__contains__, download=len
    )
    test = names["test_it_waits_for_the_export"]
    assert callable(test)
    test()
    first = run("exports.fetch", "acme")
    assert first.again is not None
    assert (first.again.message, first.checkpoint) == ("waits for export of-acme", "of-acme")
    ready.add("of-acme")
    assert run("exports.fetch", "acme", attempt=2, checkpoint=first.checkpoint).result == len("of-acme")


def test_the_handler_that_goes_on_starts_where_it_was_told_to() -> None:
    stored: list[int] = []
    # The page shows it without its imports, after another one that has them.
    names = page_code(RETRIES, handler=handler, Context=Context, store=stored.append)
    assert issubclass(names["CustomerGone"], Exception)  # type: ignore[arg-type]
    outcome = run("import.rows", checkpoint=998_000)
    assert outcome.result == 1_000_000
    assert stored == list(range(998_000, 1_000_000))
    assert outcome.checkpoint == 999_000


def test_the_receiver_of_the_howto_takes_each_message_once_and_no_forged_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = new_secret()
    monkeypatch.setenv("TASKFLOW_WEBHOOK_SECRET", secret)
    receive = page_code(WEBHOOKS)["receive"]
    assert callable(receive)
    body = '{"type": "task.failed", "data": {"namespace": "default", "name": "invoice-7"}}'
    headers = signed_headers([new_secret(), secret], "evt_1", datetime.now(UTC), body)
    assert [receive(headers, body.encode()) for _ in range(2)] == [204, 204]
    assert capsys.readouterr().out == "task.failed default invoice-7\n"
    assert receive(headers, body.replace("7", "8").encode()) == 400
    assert receive({}, body.encode()) == 400


@pytest.mark.parametrize("page", pages())
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"`(?:\w+=\w+ )*make ([a-z][a-z0-9 -]*)", (ROOT / page).read_text())
    assert {target for each in named for target in each.split()} <= targets


@pytest.mark.parametrize("page", pages())
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    prose = re.sub(r"`[^`]*`", "", (ROOT / page).read_text())
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose)
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not ((ROOT / page).parent / link).exists()] == []


def shell(text: str) -> Block:
    return Block("page.md", 1, "console", text, None)


def test_lines_without_a_prompt_are_commands_where_none_has_one() -> None:
    assert [each.words for each in commands(shell("make up    # starts\n\n# so\nkubectl get tft\n"))] == [
        "make up",
        "kubectl get tft",
    ]


def test_lines_without_a_prompt_are_output_where_one_has_it() -> None:
    text = "$ kubectl get tft\nNAME  PHASE\na     Queued\n$ true\n"
    assert commands(shell(text)) == [Command("kubectl get tft", "NAME  PHASE\na     Queued\n"), Command("true", "")]


def test_a_command_that_goes_on_in_the_next_line_is_one() -> None:
    assert commands(shell("$ kubectl \\\n  get tft\nNAME\n")) == [Command("kubectl \\\n  get tft", "NAME\n")]


def test_a_block_knows_its_line_its_language_and_the_file_it_is_to_be() -> None:
    text = "# Page\n\nSave this as `a.yaml`:\n\n```yaml\nkind: Task\n```\n\nThen:\n```console\n$ true\n```\n"
    assert list(blocks("page.md", text)) == [
        Block("page.md", 5, "yaml", "kind: Task\n", "a.yaml"),
        Block("page.md", 10, "console", "$ true\n", None),
    ]
