import os
import signal
from pathlib import Path

import pytest

from taskflow_local import processes
from taskflow_local.processes import Identity, Stat, is_same, parse_stat, read_record, stat_of

LINE = "4242 (a (b) c) S 1 4240 4239 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 987654 1 2 3"


def test_the_stat_line_is_read_even_when_the_name_holds_parentheses_and_blanks() -> None:
    assert parse_stat(LINE) == Stat(state="S", session=4239, start_ticks=987654)


@pytest.mark.parametrize(
    ("found", "boot", "same"),
    [
        (Stat("S", 7, 100), "boot-1", True),
        (Stat("S", 7, 101), "boot-1", False),
        (Stat("S", 7, 100), "boot-2", False),
        (Stat("Z", 7, 100), "boot-1", False),
        (None, "boot-1", False),
    ],
    ids=["same", "pid reused", "machine rebooted", "zombie", "gone"],
)
def test_a_process_is_known_by_pid_start_time_and_boot(found: Stat | None, boot: str, same: bool) -> None:
    assert is_same(Identity(7, 100, "boot-1"), found, boot) is same


@pytest.mark.parametrize("content", ["", "{", '{"pid": 7}', "[]"])
def test_a_record_cut_short_by_a_crash_counts_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "record"
    path.write_text(content)
    assert read_record(path) is None
    assert read_record(tmp_path / "absent") is None


def test_a_process_that_ends_while_it_is_looked_at_is_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = processes.start(
        ["sleep", "60"], env={"PATH": os.defpath}, cwd=tmp_path, log=tmp_path / "log", record=tmp_path / "record.json"
    )

    def ends(pid: int) -> Stat | None:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return stat_of(pid)

    with monkeypatch.context() as patch:
        patch.setattr(processes, "stat_of", ends)
        assert not processes.is_alive(identity)
    assert stat_of(identity.pid) is None
