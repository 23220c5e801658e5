from pathlib import Path

import pytest

from taskflow_local.errors import LocalError
from taskflow_local.state import Folder, StackState, write_private


def test_secrets_are_random_for_each_stack_and_survive_a_save(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    state = StackState()
    assert state.redis_password != StackState().redis_password
    folder.save(state)
    assert folder.load() == state


def test_a_broken_state_file_is_an_error_and_never_replaced_by_new_secrets(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(LocalError, match="expected the state of a stack"):
        Folder(tmp_path).load()


def test_a_private_file_is_private_even_if_it_replaces_a_public_one(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
