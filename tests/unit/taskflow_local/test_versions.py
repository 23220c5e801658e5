import pytest

from taskflow_local.catalogue import PROGRAMS
from taskflow_local.versions import Accepted, find_version


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Kubernetes v1.36.3\n", (1, 36, 3)),
        ("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0\n", (1, 32, 4)),
        ("etcd Version: 3.6.16\nGit SHA: Not provided\nGo Version: go1.26.8\n", (3, 6, 16)),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", (15, 18)),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n", (7, 0, 15)),
        ("minio version RELEASE.2025-10-15T17-29-55Z (commit-id=9e49d5e7)\n", (2025, 10, 15)),
        ("minio version DEVELOPMENT.GOGET (commit-id=DEVELOPMENT.GOGET)\n", None),
        ("command not found", None),
    ],
)
def test_a_version_is_read_from_what_each_program_prints(output: str, version: tuple[int, ...] | None) -> None:
    assert find_version(output) == version


def test_a_range_is_half_open_and_says_so_in_words() -> None:
    accepted = Accepted((1, 35), (1, 38))
    assert (1, 35, 0) in accepted
    assert (1, 37, 9) in accepted
    assert (1, 34, 9) not in accepted
    assert (1, 38, 0) not in accepted
    assert str(accepted) == "at least 1.35 and below 1.38"
    assert str(Accepted((14,))) == "14 or newer"


def test_kubectl_is_accepted_within_one_minor_of_the_pinned_server_only() -> None:
    accepted = PROGRAMS["kubectl"].accepted
    assert [minor for minor in range(30, 42) if (1, minor, 0) in accepted] == [35, 36, 37]
