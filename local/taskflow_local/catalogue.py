"""The programs of local mode: which versions are accepted, and where to get a program that is not installed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from taskflow_local.versions import Accepted

GO_MODULES = Path(__file__).parent / "go"
GO_MINIMUM = (1, 26, 0)
GO_PIN = "1.26.6"

KUBERNETES_BUILD = "v1.36.3"
KUBERNETES_DOWNLOAD = "v1.36.2"
_KUBERNETES_LDFLAGS = " ".join(
    f"-X k8s.io/component-base/version.{field}={value}"
    for field, value in (("gitVersion", KUBERNETES_BUILD), ("gitMajor", "1"), ("gitMinor", "36"))
)
# Without these, helm assumes Kubernetes 1.20 and refuses to render charts for newer versions.
_HELM_LDFLAGS = "-X helm.sh/helm/v3/internal/version.version=v3.22.0 " + " ".join(
    f"-X helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={value}"
    for package in ("chartutil", "lint/rules")
    for part, value in (("Major", "1"), ("Minor", "36"))
)


@dataclass(frozen=True)
class GoSource:
    """A program in a pinned Go module of this repository (a folder below `go/` with go.mod and go.sum)."""

    module: str
    package: str
    usual_time: str
    ldflags: str = ""

    @property
    def folder(self) -> Path:
        """The folder to build in."""
        return GO_MODULES / self.module

    def fingerprint(self) -> str:
        """A digest of all pins and flags, so that the cache never serves an outdated build."""
        digest = hashlib.sha256(f"{self.package} {self.ldflags}".encode())
        for name in ("go.mod", "go.sum"):
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()[:10]


@dataclass(frozen=True)
class Download:
    """An official file. `envtest` has a pinned checksum, `plain` and `helm` a published one."""

    version: str
    kind: str


@dataclass(frozen=True)
class Program:
    """One program: how to ask its version, which versions are accepted, and where else to get it."""

    name: str
    version_arguments: tuple[str, ...]
    accepted: Accepted
    go: GoSource | None = None
    download: Download | None = None
    debian_package: str | None = None
    folders: str | None = None

    @property
    def variable(self) -> str:
        """The environment variable with which a user sets the path."""
        return "TASKFLOW_PROGRAM_" + self.name.upper().replace("-", "_")


def _kubernetes(name: str, accepted: Accepted, minutes: str, download: str, *version_arguments: str) -> Program:
    source = GoSource("kubernetes", f"k8s.io/kubernetes/cmd/{name}", minutes, _KUBERNETES_LDFLAGS)
    return Program(name, version_arguments or ("--version",), accepted, source, Download(KUBERNETES_DOWNLOAD, download))


_POSTGRES = Accepted((14,))
_POSTGRES_FOLDERS = "/usr/lib/postgresql/*/bin"

# The controller manager may be one minor version older than the API server, kubectl one minor older or newer
# (https://kubernetes.io/releases/version-skew-policy/); the API server is 1.36 or 1.37.
PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "etcd",
            ("--version",),
            Accepted((3, 6), (4,)),
            GoSource("etcd", "go.etcd.io/etcd/server/v3", "1 to 2 minutes"),
            Download(KUBERNETES_DOWNLOAD, "envtest"),
        ),
        _kubernetes("kube-apiserver", Accepted((1, 36), (1, 38)), "4 to 7 minutes", "envtest"),
        _kubernetes("kube-controller-manager", Accepted((1, 36), (1, 37)), "1 to 3 minutes", "plain"),
        _kubernetes("kubectl", Accepted((1, 35), (1, 38)), "about 1 minute", "envtest", "version", "--client"),
        Program(
            "minio",
            ("--version",),
            Accepted((2025, 1, 1)),
            GoSource("minio", "github.com/minio/minio", "2 to 4 minutes"),
        ),
        Program(
            "versitygw",
            ("--version",),
            Accepted((1, 0)),
            GoSource("versitygw", "github.com/versity/versitygw/cmd/versitygw", "1 to 2 minutes"),
        ),
        Program(
            "helm",
            ("version", "--short"),
            Accepted((3, 18), (5,)),
            GoSource("helm", "helm.sh/helm/v3/cmd/helm", "1 to 5 minutes", _HELM_LDFLAGS),
            Download("v3.22.0", "helm"),
        ),
        Program(
            "helm4",
            ("version", "--short"),
            Accepted((4, 0), (5,)),
            GoSource("helm4", "helm.sh/helm/v4/cmd/helm", "2 to 5 minutes"),
            Download("v4.3.1", "helm"),
        ),
        Program(
            "actionlint",
            ("-version",),
            Accepted((1, 7)),
            GoSource("actionlint", "github.com/rhysd/actionlint/cmd/actionlint", "a few seconds"),
        ),
        Program(
            "kube-score",
            ("version",),
            Accepted((1, 20)),
            GoSource(
                "kube-score", "github.com/zegl/kube-score/cmd/kube-score", "half a minute", "-X main.version=1.20.0"
            ),
        ),
        Program("promtool", ("--version",), Accepted((2, 30)), debian_package="prometheus"),
        Program("redis-server", ("--version",), Accepted((7, 0)), debian_package="redis-server"),
        Program("postgres", ("--version",), _POSTGRES, debian_package="postgresql", folders=_POSTGRES_FOLDERS),
        Program("initdb", ("--version",), _POSTGRES, debian_package="postgresql", folders=_POSTGRES_FOLDERS),
    )
}
FOR_TESTS = ("actionlint", "helm", "helm4", "kube-score", "promtool", "versitygw")
"""Programs that only tests start."""
