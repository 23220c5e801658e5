from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings
from pytest_socket import disable_socket, enable_socket
from xdist.remote import Producer

from tests import session as sessions
from tests.groups import Scheduler, order_of

UNIT = Path(__file__).parent / "unit"
# No deadline: one example may meet a pause of a busy machine.
settings.register_profile("taskflow", max_examples=50, deadline=None)
settings.load_profile("taskflow")
# Plain traces: where rich is installed, structlog's default draws one of a deep value for half a minute.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer(colors=False),
    ]
)
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
_KEPT = ("TASKFLOW_PROGRAM_", "TASKFLOW_DOWNLOAD_", "TASKFLOW_KEEP")
"""Where programs are, and what to leave running: they steer the tests, not the product."""


def _is_ambient(name: str) -> bool:
    if name.startswith("TASKFLOW_"):
        return not name.startswith(_KEPT)
    return name == "KUBECONFIG" or name.lower() in _PROXIES


# At import, before any test module reads settings: a shell that points at a real installation must not reach a test.
for _name in [name for name in os.environ if _is_ambient(name)]:
    del os.environ[_name]


_FOLDER = sessions.begin()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if sessions.WORKER in os.environ:
        items.sort(key=order_of)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduler:
    return Scheduler(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """A process that is left running fails the run; the folders of a run that failed are kept."""
    yield
    if sessions.WORKER in os.environ:
        return
    interrupted = session.exitstatus == pytest.ExitCode.INTERRUPTED
    if left := sessions.left_running(_FOLDER, seconds=0 if interrupted else 10):
        sessions.kill(left)
        if not interrupted:
            print("\nleft running, and killed:", *(f"{pid} {said}" for pid, said in left.items()), sep="\n")  # noqa: T201
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if (
        session.exitstatus in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
        or "TASKFLOW_KEEP" in os.environ
    ):
        print(f"\nkept: {_FOLDER}")  # noqa: T201
    else:
        sessions.end(_FOLDER)


@pytest.fixture(autouse=True)
def _no_sockets_in_unit_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """A unit test that opens a connection fails; an event loop's own pair of Unix sockets is allowed."""
    if UNIT not in request.path.parents:
        yield
        return
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
