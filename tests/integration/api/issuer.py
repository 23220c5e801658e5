"""An OIDC issuer that serves its documents on this machine."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec


class Issuer:
    """Signs with its newest key, and publishes all keys that are not withdrawn."""

    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.asked = 0
        self.away = False
        self.rotate()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/realm"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.keys[f"key-{len(self.keys)}"] = ec.generate_private_key(ec.SECP256R1())

    def token(self, subject: str, **fields: Any) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": "taskflow", "sub": subject, "iat": now, "exp": now + 3600, **fields}
        kid, key = list(self.keys.items())[-1]
        return jwt.encode(claims, key, "ES256", {"kid": kid})

    def answer(self, path: str) -> dict[str, Any] | None:
        self.asked += 1
        if self.away:
            return None
        if path == "/realm/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        if path == "/realm/keys":
            public = jwt.algorithms.ECAlgorithm.to_jwk
            return {"keys": [{**public(key.public_key(), as_dict=True), "kid": kid} for kid, key in self.keys.items()]}
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = issuer.answer(self.path)
                content = json.dumps(answer).encode()
                self.send_response(200 if answer else 503)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base class names it so
                pass

        return Handler
