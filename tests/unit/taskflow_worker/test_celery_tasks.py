# mypy: disable-error-code="untyped-decorator"
# ruff: noqa: T201 - handlers print
from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task, _state, current_app, signals
from celery.exceptions import Ignore, Reject, Retry

from taskflow_core.domain.events import Continuation, Failure, Success
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Invalid
from taskflow_worker.attempts.execution import run_attempt
from taskflow_worker.handlers.celery_tasks import adopt, register
from taskflow_worker.sdk.registry import Registry
from taskflow_worker.sdk.testing import run
from tests.builders import UID, make_message

EXAMPLE = Path(__file__).parents[3] / "examples" / "celery_app"


class NoObjects:
    """An object store that must not be used."""

    def get_to_file(self, key: str, path: Path) -> Any:
        raise AssertionError(key)

    def put_file(self, key: str, path: Path, content_type: str) -> Any:
        raise AssertionError(key)


def make_app() -> Celery:
    # Servers that do not exist: using them fails the test.
    return Celery("people", broker="amqp://broker.invalid//", backend="redis://backend.invalid/0", set_as_current=False)


def attempt(task: Any, *, reports: list[Any] | None = None, **message: Any) -> Success | Continuation | Failure:
    registry = Registry()
    register([task], registry)
    report = (reports if reports is not None else []).append
    return run_attempt(make_message(handler=task.name, **message), registry, NoObjects(), patience=0, report=report)


def failure(task: Any, **message: Any) -> Failure:
    outcome = attempt(task, **message)
    assert isinstance(outcome, Failure)
    return outcome


def result(task: Any, **message: Any) -> Any:
    outcome = attempt(task, **message)
    assert isinstance(outcome, Success), outcome
    return outcome.result


def test_a_task_gets_its_arguments_and_gives_its_result() -> None:
    @make_app().task(shared=False, name="add")
    def add(a: int, b: int, *, c: int = 0) -> tuple[int, int]:
        return a + b, c

    assert result(add, args=[1, 2], kwargs={"c": 3}) == [3, 3]


def test_a_bound_task_has_its_id_and_retry_count() -> None:
    @make_app().task(shared=False, name="who", bind=True)
    def who(self: Any) -> dict[str, Any]:
        request = self.request
        return {"id": request.id, "retries": request.retries, "eager": request.is_eager, "task": request.task}

    assert result(who, attempt=3) == {"id": UID, "retries": 2, "eager": False, "task": "who"}


def test_arguments_are_checked_as_delay_checks_them() -> None:
    calls: list[Any] = []

    @make_app().task(shared=False, name="strict", bind=True)
    def strict(self: Any, a: int) -> None:
        calls.append(a)

    @make_app().task(shared=False, name="loose", typing=False)
    def loose(a: int) -> None:
        calls.append(a)

    found = failure(strict, args=[1, 2])
    assert found.reason is Reason.INVALID_ARGUMENTS
    assert "strict was given other arguments" in found.message
    assert calls == []
    assert failure(loose, args=[1, 2]).reason is Reason.HANDLER_ERROR


def test_an_error_is_reported_with_its_trace() -> None:
    @make_app().task(shared=False, name="broken")
    def broken() -> None:
        raise KeyError("no row")

    found = failure(broken)
    assert (found.reason, found.type, found.message) == (Reason.HANDLER_ERROR, "KeyError", "'no row'")
    assert "in broken" in found.trace
    assert "celery/app/trace.py" not in found.trace


def flaky(app: Celery, **options: Any) -> Any:
    @app.task(shared=False, name="flaky", bind=True, **options)
    def task(self: Any, countdown: int = 600) -> None:
        try:
            raise ConnectionError("no answer")  # noqa: TRY301
        except ConnectionError as error:
            raise self.retry(exc=error, countdown=countdown) from error

    return task


def test_a_retry_is_a_failed_attempt_that_may_be_followed_by_another() -> None:
    found = failure(flaky(make_app()), attempt=3)
    assert (found.reason, found.type, found.message) == (Reason.HANDLER_ERROR, "ConnectionError", "no answer")
    assert found.classes == ("ConnectionError", "OSError", "Exception", "BaseException")


def test_a_retry_beyond_max_retries_is_final() -> None:
    found = failure(flaky(make_app()), attempt=4)
    assert (found.reason, found.type) == (Reason.NOT_RETRYABLE, "ConnectionError")
    assert found.message == "no answer (max_retries is used up)"
    assert failure(flaky(make_app(), max_retries=None), attempt=100).reason is Reason.HANDLER_ERROR


def test_a_retry_without_an_error_is_reported_as_a_retry() -> None:
    @make_app().task(shared=False, name="again", bind=True)
    def again(self: Any) -> None:
        self.retry()

    found = failure(again)
    assert (found.reason, found.type) == (Reason.HANDLER_ERROR, "celery.exceptions.Retry")
    spent = failure(again, attempt=9)
    assert spent.reason is Reason.NOT_RETRYABLE
    assert "asked for more than 3 retries" in spent.message


def test_a_retry_that_does_not_raise_still_is_one() -> None:
    @make_app().task(shared=False, name="quiet", bind=True)
    def quiet(self: Any) -> str:
        assert isinstance(self.retry(throw=False), Retry)
        return "went on"

    assert failure(quiet).reason is Reason.HANDLER_ERROR


@pytest.mark.parametrize(("attempt_number", "reason"), [(1, Reason.HANDLER_ERROR), (3, Reason.NOT_RETRYABLE)])
def test_autoretry_works(attempt_number: int, reason: Reason) -> None:
    @make_app().task(shared=False, name="auto", autoretry_for=(ConnectionError,), retry_backoff=True, max_retries=2)
    def auto() -> None:
        raise ConnectionError("no answer")

    found = failure(auto, attempt=attempt_number)
    assert (found.reason, found.type) == (reason, "ConnectionError")


def test_ignore_is_success_without_a_result() -> None:
    @make_app().task(shared=False, name="ignored")
    def ignored() -> None:
        raise Ignore

    assert result(ignored) is None


@pytest.mark.parametrize(("requeue", "reason"), [(True, Reason.HANDLER_ERROR), (False, Reason.NOT_RETRYABLE)])
def test_reject_is_final_unless_it_requeues(requeue: bool, reason: Reason) -> None:
    @make_app().task(shared=False, name="rejected")
    def rejected() -> None:
        raise Reject("not for sale", requeue=requeue)

    found = failure(rejected)
    assert found.reason is reason
    assert "not for sale" in found.message


def test_its_state_becomes_progress() -> None:
    @make_app().task(shared=False, name="pack", bind=True)
    def pack(self: Any) -> None:
        self.update_state(state="PROGRESS", meta={"current": 3, "total": 10})
        self.update_state(state="PROGRESS", meta={"current": 4.7, "total": 10, "status": "wrapping"})
        self.update_state(state="SLEEPING", meta={"until": "noon"})
        self.update_state(state="DREAMING")
        self.update_state(task_id="another", state="PROGRESS", meta={"current": 9})

    reports: list[Any] = []
    attempt(pack, reports=reports)
    assert [(a.progress.done, a.progress.total, a.progress.message) for a in reports] == [
        (3, 10, "PROGRESS"),
        (4, 10, 'PROGRESS {"status": "wrapping"}'),
        (0, None, 'SLEEPING {"until": "noon"}'),
        (0, None, "DREAMING"),
    ]


def test_concurrent_attempts_of_one_task_report_separately() -> None:
    both = threading.Barrier(2)

    @make_app().task(shared=False, name="pack", bind=True)
    def pack(self: Any, number: int) -> None:
        both.wait(10)
        self.update_state(state="PROGRESS", meta={"current": number})
        both.wait(10)
        raise self.retry(exc=ValueError(f"no {number}"))

    reports: dict[int, list[Any]] = {1: [], 2: []}
    registry = Registry()
    register([pack], registry)

    def work(number: int) -> Success | Continuation | Failure:
        message = make_message(handler="pack", args=(number,))
        return run_attempt(message, registry, NoObjects(), patience=0, report=reports[number].append)

    with ThreadPoolExecutor(2) as threads:
        ends = dict(zip(reports, threads.map(work, reports), strict=True))
    assert {number: [each.progress.done for each in said] for number, said in reports.items()} == {1: [1], 2: [2]}
    assert {number: end.message for number, end in ends.items() if isinstance(end, Failure)} == {1: "no 1", 2: "no 2"}


def test_a_thread_that_a_task_starts_reports_for_it() -> None:
    @make_app().task(shared=False, name="helped", bind=True)
    def helped(self: Any) -> None:
        thread = threading.Thread(target=self.update_state, kwargs={"meta": {"current": 3}})
        thread.start()
        thread.join()

    reports: list[Any] = []
    attempt(helped, reports=reports)
    assert [each.progress.done for each in reports] == [3]


def test_hooks_and_signals_are_called() -> None:
    calls: list[str] = []

    class Hooked(Task):  # type: ignore[misc]
        def before_start(self, *_: Any) -> None:
            calls.append("before_start")

        def on_failure(self, *_: Any) -> None:
            calls.append("on_failure")

        def after_return(self, *_: Any) -> None:
            calls.append("after_return")

    @make_app().task(shared=False, name="hooked", base=Hooked)
    def hooked() -> None:
        raise ValueError

    def on_prerun(task_id: str, **_: Any) -> None:
        calls.append(f"prerun {task_id}")

    signals.task_prerun.connect(on_prerun)
    try:
        failure(hooked)
    finally:
        signals.task_prerun.disconnect(on_prerun)
    assert calls == [f"prerun {UID}", "before_start", "on_failure", "after_return"]


def test_its_own_application_is_the_current_one_while_it_runs() -> None:
    app = make_app()

    @app.task(shared=False, name="current")
    def current() -> bool:
        return current_app._get_current_object() is app

    assert result(current) is True


def test_the_output_of_a_task_is_captured() -> None:
    @make_app().task(shared=False, name="noisy")
    def noisy() -> None:
        print("hello")
        raise ValueError

    registry_name = "noisy.adopted"
    noisy.name = registry_name
    from taskflow_worker.sdk.registry import REGISTRY  # noqa: PLC0415

    register([noisy], REGISTRY)
    outcome = run(registry_name)
    lines = [line.split(" ", 1)[1] for line in outcome.logs.splitlines()]
    assert lines[0] == "stdout hello"
    assert "in noisy" in outcome.logs


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery adds the shared tasks of a process to all its applications: start without any."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set())


@pytest.mark.usefixtures("alone")
def test_the_tasks_of_the_example_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    registry = Registry()
    adopt("shop:app", registry)
    assert {"shop.total", "shop.reserve", "shop.audit"} <= set(registry.names)
    assert not [name for name in registry.names if name.startswith("celery.")]
    outcome = run_attempt(make_message(handler="shop.audit"), registry, NoObjects(), patience=0)
    assert isinstance(outcome, Success)
    assert outcome.result == "shop:shop.audit"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("", "theirs:app", "cannot be imported: AttributeError"),
        ("raise RuntimeError('no database')", "theirs:app", "RuntimeError: no database"),
        ("app = 3", "theirs:app", "is a int; expected a Celery application"),
        ("from celery import Celery\napp = Celery('x', set_as_current=False)", "theirs:app", "has no tasks"),
        (
            "from celery import Celery\napp = Celery('x', include=['surely_missing'], set_as_current=False)",
            "theirs:app",
            "No module named 'surely_missing'",
        ),
        ("", "surely_missing:app", "No module named 'surely_missing'"),
    ],
)
def test_an_application_that_cannot_be_used_says_why(
    source: str, name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    with pytest.raises(Invalid) as caught:
        adopt(name, Registry())
    assert message in str(caught.value)
