import threading

import pytest

from taskflow_local.startup import Step, run_all


def test_steps_run_after_their_predecessors_and_in_parallel_otherwise() -> None:
    both_run = threading.Barrier(2, timeout=10)
    order: list[str] = []

    def meet(name: str) -> bool:
        both_run.wait()
        order.append(name)
        return True

    def note(name: str) -> bool:
        order.append(name)
        return False

    said: list[str] = []
    steps = [
        Step("etcd", (), lambda: meet("etcd")),
        Step("redis", (), lambda: meet("redis")),
        Step("api", ("etcd", "redis", "not part of this start"), lambda: note("api")),
    ]
    run_all(steps, said.append, lambda: None, clock=lambda: 1.0)
    assert order[2] == "api"
    assert sorted(said) == ["etcd: ready after 0.0 s", "redis: ready after 0.0 s"]


def test_a_failure_skips_the_steps_after_it_and_is_raised() -> None:
    taken: list[str] = []

    def fail() -> bool:
        raise ValueError("etcd broke")

    def note(name: str) -> bool:
        taken.append(name)
        return True

    steps = [
        Step("etcd", (), fail),
        Step("apiserver", ("etcd",), lambda: note("apiserver")),
        Step("node", ("apiserver",), lambda: note("node")),
        Step("redis", (), lambda: note("redis")),
    ]
    with pytest.raises(ValueError, match="etcd broke"):
        run_all(steps, print, lambda: None)
    assert taken == ["redis"]
