"""Data files that ship with the product."""

from __future__ import annotations

from pathlib import Path


def path(name: str) -> Path:
    """Folder of data files that ship with the product: `crds`, `examples`, `migrations` or `policies`.

    In a wheel they lie inside the package; in a checkout at the top of the repository.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    here = Path(__file__).resolve().parent
    for candidate in (here / "_data" / name, here.parents[1] / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"data folder {name!r} is neither in the package nor in a checkout; reinstall taskflow-operator"
    )
