from __future__ import annotations

import base64
import json
import stat
import sys
from pathlib import Path

import pytest

from taskflow_cli.cluster.credentials import Credentials, credentials_of
from taskflow_cli.cluster.kubeconfig import (
    Access,
    ExecPlugin,
    Impersonation,
    Kubeconfig,
    access_of,
    in_cluster,
    paths_of,
    read,
)
from taskflow_cli.cluster.transport import headers_of
from taskflow_cli.errors import CliError, Exit


def config(tmp_path: Path, content: object, name: str = "config") -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def whole(cluster: dict[str, object], user: dict[str, object]) -> dict[str, object]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": "https://kube.test/", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


def test_files_are_named_by_the_option_then_the_environment_then_the_home() -> None:
    environ = {"KUBECONFIG": "/a::/b", "HOME": "/home/me"}
    assert paths_of(environ, Path("/c")) == [Path("/c")]
    assert paths_of(environ, None) == [Path("/a"), Path("/b")]
    assert paths_of({"HOME": "/home/me"}, None) == [Path("/home/me/.kube/config")]


def test_of_several_files_the_first_that_names_something_counts(tmp_path: Path) -> None:
    first = config(tmp_path, {"contexts": [{"name": "x", "context": {"cluster": "c", "namespace": "mine"}}]}, "1")
    second = config(tmp_path, whole({}, {"token": "t"}), "2")
    access = access_of(read([first, tmp_path / "nowhere", second]))
    assert (access.server, access.namespace, access.token) == ("https://kube.test", "mine", "")


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        whole(
            {"certificate-authority": "pki/ca.pem"},
            {
                "client-certificate": "pki/me.pem",
                "client-key-data": base64.b64encode(b"KEY").decode(),
                "tokenFile": "t",
            },
        ),
        "sub/config",
    )
    (tmp_path / "sub" / "pki").mkdir()
    (tmp_path / "sub" / "pki" / "ca.pem").write_text("CA")
    (tmp_path / "sub" / "pki" / "me.pem").write_text("ME")
    (tmp_path / "sub" / "t").write_text("token\n")
    access = access_of(read([path]))
    assert (access.ca, access.certificate, access.key) == ("CA", "ME", "KEY")
    assert credentials_of(access, {}) == Credentials("token", "ME", "KEY")


@pytest.mark.parametrize(
    ("content", "name", "error"),
    [
        ([], "", "is no kubeconfig: expected a mapping, found list"),
        ({"contexts": [{}]}, "", "an entry of contexts has no name"),
        ({}, "", "no cluster is chosen"),
        (whole({}, {}), "y", "context 'y' does not exist: known: x"),
        ({"contexts": [{"name": "x", "context": {"cluster": "c"}}]}, "x", "its cluster 'c' is not in the kubeconfig"),
        (whole({"server": "kube.test"}, {}), "", "expected an https:// URL, found 'kube.test'"),
        (whole({}, {"auth-provider": {"name": "gcp"}}), "", "uses auth-provider, which is not supported"),
        (whole({"certificate-authority-data": "?"}, {}), "", "the certificate-authority of the kubeconfig is no PEM"),
        (whole({"certificate-authority": "/nowhere/ca"}, {}), "", "/nowhere/ca: No such file or directory"),
    ],
)
def test_a_bad_kubeconfig_says_what_is_wrong(tmp_path: Path, content: object, name: str, error: str) -> None:
    path = config(tmp_path, content)
    with pytest.raises(CliError) as caught:
        access_of(read([path]), name)
    assert error in str(caught.value)


def test_a_file_that_was_named_has_to_exist(tmp_path: Path) -> None:
    assert read([tmp_path / "nowhere"]) == Kubeconfig({}, {}, {}, "")
    with pytest.raises(CliError, match="does not exist") as caught:
        read([tmp_path / "nowhere"], required=True)
    assert caught.value.code is Exit.NOT_FOUND


def plugin(tmp_path: Path, code: str) -> Access:
    path = tmp_path / "plugin"
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Access(
        "https://kube.test", ca="CA", plugin=ExecPlugin(str(path), env={"ASKED": "yes"}, provide_cluster=True)
    )


def test_a_plugin_gives_the_credentials(tmp_path: Path) -> None:
    access = plugin(
        tmp_path,
        "import json, os\n"
        "asked = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "token = asked['kind'] + os.environ['ASKED'] + asked['spec']['cluster']['certificate-authority-data']\n"
        "print(json.dumps({'status': {'token': token}}))",
    )
    assert credentials_of(access, {}).token == "ExecCredentialyesQ0E="


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise SystemExit(3)", "failed: exit code 3"),
        ("print('hello')", "printed no ExecCredential"),
        ("print('{\"status\": {}}')", "gave neither a token nor a certificate"),
    ],
)
def test_a_plugin_that_fails(tmp_path: Path, code: str, error: str) -> None:
    with pytest.raises(CliError, match=error) as caught:
        credentials_of(plugin(tmp_path, code), {})
    assert caught.value.code is Exit.NOT_ALLOWED


def test_a_plugin_that_is_not_installed() -> None:
    access = Access("https://kube.test", plugin=ExecPlugin("no-such-plugin", install_hint="brew install it"))
    with pytest.raises(CliError, match="is not installed") as caught:
        credentials_of(access, {"PATH": "/nowhere"})
    assert caught.value.hint == "brew install it"


def test_within_a_pod_its_service_account_is_used(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert in_cluster(environ, tmp_path) is None
    for name, text in (("token", "t"), ("ca.crt", "CA"), ("namespace", "team")):
        (tmp_path / name).write_text(text)
    access = in_cluster(environ, tmp_path)
    assert access is not None
    assert (access.server, access.namespace, access.ca) == ("https://[fd00::1]:443", "team", "CA")
    assert credentials_of(access, {}).token == "t"
    assert in_cluster({}, tmp_path) is None


def test_each_group_is_a_header_of_its_own() -> None:
    access = Access("https://kube.test", impersonation=Impersonation("bob", ("a", "b")))
    assert headers_of(access, Credentials("t"))[2:] == [
        ("Authorization", "Bearer t"),
        ("Impersonate-User", "bob"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
    ]
