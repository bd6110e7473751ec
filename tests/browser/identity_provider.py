"""An OpenID Connect provider for the tests: discovery, keys, the authorization code flow, and one person."""

import base64
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "pitwall", "known-to-both"


@dataclass
class IdentityProvider:
    """What it would say of who signs in: set `claims` before."""

    url: str
    claims: dict[str, Any]
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    signed_in: int = 0

    def token(self, **more: Any) -> str:
        now = int(time.time())
        said = {"iss": self.url, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 600}
        return jwt.encode({"alg": "RS256", "kid": "one"}, {**said, **self.claims, **more}, self.key)

    def answer(self, method: str, path: str, query: dict[str, str], authorization: str) -> Any:
        """A document, or an address to go to."""
        match (method, path):
            case ("GET", "/.well-known/openid-configuration"):
                return {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "jwks_uri": f"{self.url}/keys",
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                }
            case ("GET", "/keys"):
                return {"keys": [self.key.as_dict(private=False)]}
            case ("GET", "/authorize"):
                assert query["client_id"] == CLIENT
                code = secrets.token_hex(8)
                self.codes[code] = query
                said = urllib.parse.urlencode({"code": code, "state": query["state"]})
                return f"{query['redirect_uri']}?{said}"
            case ("POST", "/token"):
                known = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
                assert authorization == f"Basic {known}" or query.get("client_secret") == SECRET
                asked = self.codes.pop(query["code"])
                self.signed_in += 1
                return {
                    "access_token": secrets.token_hex(8),
                    "token_type": "Bearer",
                    "expires_in": 600,
                    "id_token": self.token(nonce=asked.get("nonce")),
                }
        return None


@contextmanager
def identity_provider(claims: dict[str, Any]) -> Iterator[IdentityProvider]:
    """The provider on a free port of loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve("GET", "")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._serve("POST", body.decode())

        def _serve(self, method: str, body: str) -> None:
            address = urllib.parse.urlparse(self.path)
            query = dict(urllib.parse.parse_qsl(body or address.query))
            answer = provider.answer(
                method, address.path, query, self.headers.get("Authorization") or ""
            )
            text = b""
            if isinstance(answer, str):
                self.send_response(302)
                self.send_header("Location", answer)
            elif answer is None:
                self.send_response(404)
            else:
                text = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: the test's output is the test's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = IdentityProvider(f"http://127.0.0.1:{server.server_port}", dict(claims))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
