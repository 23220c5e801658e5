"""An OIDC issuer without a socket: signing keys and the documents that publish them."""

import base64
import hashlib
import hmac
import json
import time
import warnings
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.warnings import InsecureKeyLengthWarning

from taskflow_core.errors import Unavailable

ISSUER = "https://login.example.com/realm"
AUDIENCE = "taskflow"


def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The key of that name, always the same."""
    return _rsa_key(name, bits)


@cache
def _rsa_key(name: str, bits: int) -> rsa.RSAPrivateKey:
    # Key generation is slow.
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def ed_key(name: str) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def rsa_jwk(name: str, bits: int = 2048, **fields: Any) -> dict[str, Any]:
    public = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key(name, bits).public_key(), as_dict=True)
    return {**public, "kid": name, "use": "sig", **fields}


def ec_jwk(name: str) -> dict[str, Any]:
    return {**jwt.algorithms.ECAlgorithm.to_jwk(ec_key(name).public_key(), as_dict=True), "kid": name}


def ed_jwk(name: str) -> dict[str, Any]:
    return {**jwt.algorithms.OKPAlgorithm.to_jwk(ed_key(name).public_key(), as_dict=True), "kid": name}


def claims(**fields: Any) -> dict[str, Any]:
    """Valid claims with changes; None removes a claim."""
    now = int(time.time())
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u-17", "iat": now, "exp": now + 300, **fields}
    return {name: value for name, value in made.items() if value is not None}


def token(
    payload: Any = None, *, key: Any = None, algorithm: str = "RS256", kid: str | None = "one", **header: Any
) -> str:
    headers = {**({"kid": kid} if kid is not None else {}), **header}
    with warnings.catch_warnings():
        # The weak key is intended.
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)
        return jwt.encode(claims() if payload is None else payload, key or rsa_key("one"), algorithm, headers)


def segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(algorithm: str) -> str:
    return f"{segment({'alg': algorithm, 'typ': 'JWT', 'kid': 'one'})}.{segment(claims())}."


def signed_with_the_public_key() -> str:
    """A forged token: HS256 with the public key as the secret."""
    public = rsa_key("one").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = f"{segment({'alg': 'HS256', 'typ': 'JWT', 'kid': 'one'})}.{segment(claims())}"
    return f"{head}.{segment(hmac.new(public, head.encode(), hashlib.sha256).digest())}"


def bent(text: str, part: int) -> str:
    """The token with one character of a part changed."""
    parts = text.split(".")
    middle = len(parts[part]) // 2
    other = "A" if parts[part][middle] != "A" else "B"
    parts[part] = parts[part][:middle] + other + parts[part][middle + 1 :]
    return ".".join(parts)


class Web:
    """The answers of the issuer's server, and a count of requests."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.discovery: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": "https://login.example.com/keys"}
        self.keys: Any = list(keys)
        self.away = False
        self.asked: list[str] = []

    async def __call__(self, url: str) -> dict[str, Any]:
        self.asked.append(url)
        if self.away:
            raise Unavailable("refused")
        if url == ISSUER + "/.well-known/openid-configuration":
            return self.discovery
        assert url == "https://login.example.com/keys"
        return {"keys": self.keys}
