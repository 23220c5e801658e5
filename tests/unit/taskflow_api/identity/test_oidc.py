import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from pydantic import ValidationError

from taskflow_api.http.kubernetes_auth import Caller, Method
from taskflow_api.identity.jwks import KeySet
from taskflow_api.identity.jwt_validation import InvalidTokenError
from taskflow_api.identity.oidc import LEEWAY_SECONDS, Oidc, caller_of
from taskflow_api.identity.tokens import Tokens
from taskflow_api.settings import OidcSettings
from taskflow_core.errors import Unavailable
from tests.unit.taskflow_api.identity.issuer import (
    AUDIENCE,
    ISSUER,
    Web,
    bent,
    claims,
    ec_jwk,
    ec_key,
    ed_jwk,
    ed_key,
    rsa_jwk,
    rsa_key,
    segment,
    signed_with_the_public_key,
    token,
    unsigned,
)
from tests.unit.taskflow_api.identity.memory import Time


def published() -> Web:
    return Web(
        rsa_jwk("one"),
        rsa_jwk("bound", alg="RS512"),
        rsa_jwk("sealing", use="enc"),
        rsa_jwk("weak", 1024),
        ec_jwk("curve"),
        ed_jwk("edwards"),
        {"kty": "oct", "kid": "shared", "k": segment(b"s" * 32)},
    )


def now() -> int:
    return int(time.time())


def settings(**fields: Any) -> OidcSettings:
    return OidcSettings(issuer=ISSUER, audience=AUDIENCE, **fields)


class Door:
    """Authenticators with OIDC alone, without Kubernetes."""

    def __init__(self, web: Web | None = None, **fields: Any) -> None:
        self.web = web or published()
        self.clock = Time()
        self.keys = KeySet(ISSUER, self.web, self.clock)
        self.asked_kubernetes: list[str] = []
        oidc = Oidc(settings(**fields), self.keys)
        self.tokens = Tokens(self._kubernetes, self._kubernetes, {ISSUER: oidc.caller})

    async def _kubernetes(self, text: str) -> Caller | None:
        self.asked_kubernetes.append(text)
        return None


@pytest.mark.parametrize(
    "make",
    [
        token,
        lambda: token(algorithm="RS384"),
        lambda: token(algorithm="PS256"),
        lambda: token(kid="bound", key=rsa_key("bound"), algorithm="RS512"),
        lambda: token(kid="curve", key=ec_key("curve"), algorithm="ES256"),
        lambda: token(kid="edwards", key=ed_key("edwards"), algorithm="EdDSA"),
        lambda: token(claims(aud=["other", AUDIENCE])),
        lambda: token(claims(exp=now() - LEEWAY_SECONDS + 5)),
        lambda: token(claims(nbf=now() + LEEWAY_SECONDS - 5)),
    ],
)
async def test_a_token_of_the_issuer_is_accepted(make: Callable[[], str]) -> None:
    found = await Door().tokens.authenticate(make())
    assert found == Caller(f"{ISSUER}#u-17", groups=("system:authenticated",))
    assert (found.method, found.subject) == (Method.OIDC, "u-17")


HOSTILE: dict[str, Callable[[], str]] = {
    "no signature": lambda: unsigned("none"),
    "no signature, otherwise written": lambda: unsigned("NoNe"),
    "no algorithm": lambda: unsigned(""),
    "the public key as a secret": signed_with_the_public_key,
    "a shared secret": lambda: token(key=b"s" * 32, algorithm="HS256", kid="shared"),
    "somebody else's key": lambda: token(key=rsa_key("theirs")),
    "another key of the issuer": lambda: token(key=rsa_key("bound")),
    "an unknown key": lambda: token(kid="never"),
    "no key named among several": lambda: token(kid=None),
    "a key to seal with": lambda: token(kid="sealing", key=rsa_key("sealing")),
    "a weak key": lambda: token(kid="weak", key=rsa_key("weak", 1024)),
    "a key for another algorithm": lambda: token(kid="bound", key=rsa_key("bound"), algorithm="RS256"),
    "an elliptic token under an RSA key": lambda: token(kid="one", key=ec_key("curve"), algorithm="ES256"),
    "its own key in the header": lambda: token(key=rsa_key("theirs"), jwk=rsa_jwk("theirs")),
    "its own key's address in the header": lambda: token(key=rsa_key("theirs"), jku="https://evil.example/keys"),
    "a critical header nobody knows": lambda: token(crit=["exotic"], exotic=True),
    "payload not encoded": lambda: token(b64=True, crit=["b64"]),
    "changed claims": lambda: bent(token(), 1),
    "changed signature": lambda: bent(token(), 2),
    "signature cut": lambda: token().rpartition(".")[0] + ".",
    "signature of nothing": lambda: ".".join([*token().split(".")[:2], "AAAA"]),
    "another audience": lambda: token(claims(aud="other")),
    "no audience": lambda: token(claims(aud=None)),
    "an empty audience": lambda: token(claims(aud=[])),
    "part of the audience": lambda: token(claims(aud=AUDIENCE[:-1])),
    "an audience that is no text": lambda: token(claims(aud=7)),
    "expired": lambda: token(claims(exp=now() - LEEWAY_SECONDS - 60)),
    "never expires": lambda: token(claims(exp=None)),
    "an end that is no number": lambda: token(claims(exp="tomorrow")),
    "an end that is no date": lambda: token(claims(exp=float("inf"))),
    "not yet": lambda: token(claims(nbf=now() + LEEWAY_SECONDS + 600)),
    "made in the future": lambda: token(claims(iat=now() + 3600)),
    "no subject": lambda: token(claims(sub=None)),
    "an empty subject": lambda: token(claims(sub="")),
    "a subject that is no text": lambda: token(claims(sub=None) | {"sub": 5}),
    "a subject of two lines": lambda: token(claims(sub="a\nsystem:masters")),
    "a subject with an escape": lambda: token(claims(sub="\x1b[31mroot")),
    "a subject too long": lambda: token(claims(sub="a" * 300)),
    "huge": lambda: token(claims(padding="x" * 20_000)),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_token_is_refused(make: Callable[[], str]) -> None:
    door = Door()
    assert await door.tokens.authenticate(make()) is None
    assert door.asked_kubernetes == []


async def test_each_hostile_token_differs_from_a_valid_one_only_in_its_named_fault() -> None:
    # Built by the same function as the good one, so that no typing error here refuses them.
    assert len(HOSTILE) == len({make() for make in HOSTILE.values()})
    assert await Door().tokens.authenticate(token()) is not None


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b", "a.b.c.d", "ü.ü.ü", segment({"alg": "RS256"}) + "." + segment(b"[" * 9000) + ".AAAA"]
)
async def test_other_tokens_go_to_kubernetes(text: str) -> None:
    door = Door()
    assert await door.tokens.authenticate(text) is None
    assert door.asked_kubernetes == [text]
    assert door.web.asked == []


@pytest.mark.parametrize("issuer", [ISSUER + "/", ISSUER.upper(), "https://evil.example", ["x"], None, {"a": 1}])
async def test_a_token_of_another_issuer_goes_to_kubernetes(issuer: Any) -> None:
    door = Door()
    made = {**claims(iss=None), **({} if issuer is None else {"iss": issuer})}
    head = segment({"alg": "RS256", "kid": "one"})
    assert await door.tokens.authenticate(f"{head}.{segment(made)}.AAAA") is None
    assert len(door.asked_kubernetes) == 1


async def test_a_huge_token_is_refused_without_a_request() -> None:
    door = Door()
    assert await door.tokens.authenticate("x" * 16_385) is None
    assert await door.tokens.authenticate(token(claims(padding="x" * 20_000))) is None
    assert (door.asked_kubernetes, door.web.asked) == ([], [])


@pytest.mark.parametrize("depth", [100, 900, 2000])
async def test_a_signed_token_with_claims_nested_too_deep_is_no_server_error(depth: int) -> None:
    payload = segment(b'{"iss":"' + ISSUER.encode() + b'","x":' + b"[" * depth + b"]" * depth + b"}")
    head = f"{segment({'alg': 'RS256', 'kid': 'one'})}.{payload}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(head.encode(), rsa_key("one"))
    assert await Door().tokens.authenticate(f"{head}.{segment(signature)}") is None


@pytest.mark.parametrize(
    ("fields", "told", "username", "groups"),
    [
        ({}, {}, f"{ISSUER}#u-17", []),
        ({"username_prefix": "oidc:"}, {}, "oidc:u-17", []),
        ({"username_prefix": "-"}, {}, "u-17", []),
        ({"username_claim": "preferred_username"}, {"preferred_username": "ann"}, f"{ISSUER}#ann", []),
        ({"username_claim": "email", "username_prefix": "-"}, {"email": "a@b", "email_verified": True}, "a@b", []),
        ({"groups_claim": "groups"}, {"groups": ["dev"]}, f"{ISSUER}#u-17", [f"{ISSUER}#dev"]),
        ({"groups_claim": "groups", "groups_prefix": "oidc:"}, {"groups": "dev"}, f"{ISSUER}#u-17", ["oidc:dev"]),
        ({"groups_claim": "groups", "groups_prefix": "-"}, {"groups": ["a", "a", ""]}, f"{ISSUER}#u-17", ["a"]),
        ({"groups_claim": "groups"}, {}, f"{ISSUER}#u-17", []),
        ({}, {"groups": ["dev"]}, f"{ISSUER}#u-17", []),
        (
            {"groups_claim": "groups", "groups_prefix": "-"},
            {"groups": ["system:masters", "dev", "system:authenticated", "a\nb", "x" * 300]},
            f"{ISSUER}#u-17",
            ["dev"],
        ),
        ({"groups_claim": "groups", "groups_prefix": "sys"}, {"groups": ["tem:masters"]}, f"{ISSUER}#u-17", []),
    ],
)
def test_claims_map_to_a_user_and_groups_with_prefixes(
    fields: dict[str, str], told: dict[str, Any], username: str, groups: list[str]
) -> None:
    found = caller_of(claims(**told), settings(**fields))
    assert (found.username, found.groups) == (username, (*groups, "system:authenticated"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"username_prefix": "-"}, {"sub": "system:admin"}),
        ({"username_prefix": "-"}, {"sub": "system:serviceaccount:kube-system:default"}),
        ({"username_prefix": "sys"}, {"sub": "tem:kube-controller-manager"}),
        ({"username_claim": "email"}, {"email": "a@b"}),
        ({"username_claim": "email"}, {"email": "a@b", "email_verified": False}),
        ({"username_claim": "email"}, {"email": "a@b", "email_verified": "true"}),
        ({"username_claim": "name"}, {}),
        ({"groups_claim": "groups"}, {"groups": {"a": 1}}),
        ({"groups_claim": "groups"}, {"groups": ["a", 1]}),
        ({"groups_claim": "groups"}, {"groups": None} | {"groups": 3}),
    ],
)
def test_claims_with_no_user_or_a_reserved_one_are_refused(fields: dict[str, str], told: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError):
        caller_of(claims(**told), settings(**fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"issuer": "http://login.example.com"}, "expected an https URL"),
        ({"issuer": "login.example.com"}, "expected an https URL"),
        ({"issuer": "https://"}, "expected an https URL"),
        ({"issuer": "http://127.0.0.1.evil.example"}, "expected an https URL"),
        ({"audience": ""}, "expected the client's id"),
        ({"username_prefix": "system:"}, "reserved for Kubernetes"),
        ({"groups_prefix": "system:serviceaccounts:"}, "reserved for Kubernetes"),
        ({"username_claim": ""}, "at least 1"),
    ],
)
def test_settings_that_would_not_be_safe_are_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        OidcSettings.model_validate({"issuer": ISSUER, "audience": AUDIENCE} | fields)


def test_without_an_issuer_there_is_no_oidc_and_one_on_this_machine_needs_no_tls() -> None:
    assert OidcSettings().issuer == ""
    for host in ("127.0.0.1:1", "localhost:1", "[::1]:1"):
        assert OidcSettings(issuer=f"http://{host}/", audience="x").issuer


async def test_an_issuer_that_is_down_at_the_first_token_is_unavailable() -> None:
    door = Door()
    door.web.away = True
    with pytest.raises(Unavailable, match="does not answer"):
        await door.tokens.authenticate(token())
