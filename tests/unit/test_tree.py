from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("component", ["core", "operator", "api", "worker", "provisioner", "local", "client", "cli"])
def test_a_component_folder_is_no_package(component: str) -> None:
    # A package named `operator` at the top of the repository would hide the standard library's module.
    assert (ROOT / component / f"taskflow_{component}" / "__init__.py").is_file()
    assert not (ROOT / component / "__init__.py").exists()


def test_no_folder_named_operator_is_a_package() -> None:
    skipped = {".venv", ".git", "node_modules", ".bootstrap"}
    found = [
        path.relative_to(ROOT)
        for path in ROOT.glob("**/operator/__init__.py")
        if not skipped.intersection(path.relative_to(ROOT).parts)
    ]
    assert found == []


def test_every_folder_of_tests_with_modules_is_a_package() -> None:
    # Without it two test modules of one name would be the same module.
    folders = {path.parent for path in (ROOT / "tests").glob("**/test_*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_root_is_no_package() -> None:
    assert not (ROOT / "__init__.py").exists()
