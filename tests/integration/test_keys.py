"""Tokens of an identity provider, whose keys a real process reads over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy.local.processes import free_ports
from services.grid.clock import ScaledClock, monotonic
from tests.integration.test_web import Tiny, problem, start, until

# In these processes: see tiny_web.
COOLDOWN_SECONDS = 2.0
ISSUER, AUDIENCE = "https://id.example/realms/county", "huashi"
OF_RSA, OF_EC = jwt.algorithms.RSAAlgorithm.to_jwk, jwt.algorithms.ECAlgorithm.to_jwk


class Provider:
    """An identity provider: its keys by id, how often it was asked, and how it behaves."""

    def __init__(self, port: int) -> None:
        self.keys: dict[str, Any] = {"one": rsa.generate_private_key(65537, 2048)}
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                provider.answers.wait(60)
                raw = json.dumps(provider.published()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def published(self) -> dict[str, Any]:
        listed = [{"kid": "shared", "kty": "oct", "k": "a2V5", "alg": "HS256"}]
        for kid, key in self.keys.items():
            to_jwk = OF_RSA if isinstance(key, rsa.RSAPrivateKey) else OF_EC
            listed.append({**json.loads(to_jwk(key.public_key())), "kid": kid, "use": "sig"})
        return {"keys": listed}

    def bearer(self, kid: str = "one", **claims: Any) -> dict[str, str]:
        """The header of a token that it signed."""
        key, now = self.keys[kid], ScaledClock().real()
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "o-1", "role": "operator", "exp": now + 60}
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        token = jwt.encode({**said, **claims}, key, algorithm=algorithm, headers={"kid": kid})
        return {"Authorization": f"Bearer {token}"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def of_provider(folder: Path, port: int) -> Tiny:
    """A tiny service that believes this provider."""
    url = f"http://127.0.0.1:{port}/keys"
    return start(folder, TOKEN_KEY="", JWKS_URL=url, TOKEN_ISSUER=ISSUER, TOKEN_AUDIENCE=AUDIENCE)


def ended(tiny: Tiny) -> None:
    tiny.process.terminate()
    assert tiny.process.wait(20) == 0


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider(free_ports(1)[0])
    yield made
    made.close()


@pytest.fixture(scope="module")
def tiny(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    running = of_provider(tmp_path_factory.mktemp("keys"), provider._server.server_port)
    yield running
    ended(running)


def ask(tiny: Tiny, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(f"{tiny.url}/v1/things", headers=headers, timeout=10)


def test_its_tokens_are_believed_for_what_they_say(tiny: Tiny, provider: Provider) -> None:
    assert ask(tiny, provider.bearer()).status_code == 200
    problem(ask(tiny, provider.bearer(role="reporter")), 403)
    problem(ask(tiny, provider.bearer(aud="elsewhere")), 401)
    problem(ask(tiny, provider.bearer(iss="https://elsewhere.example")), 401)
    problem(ask(tiny, provider.bearer(exp=ScaledClock().real() - 60)), 401)
    shared = jwt.encode({"sub": "x"}, "key", algorithm="HS256", headers={"kid": "shared"})
    problem(ask(tiny, {"Authorization": f"Bearer {shared}"}), 401)


def test_forged_keys_do_not_make_us_ask_all_the_time(tiny: Tiny, provider: Provider) -> None:
    assert ask(tiny, provider.bearer()).status_code == 200
    before, forger = provider.asked, rsa.generate_private_key(65537, 2048)
    began = monotonic()
    for number in range(60):
        head = {"kid": f"forged-{number}"}
        token = jwt.encode({"sub": "x"}, forger, algorithm="RS256", headers=head)
        document = problem(ask(tiny, {"Authorization": f"Bearer {token}"}), 401)
        assert "the key that signed the token is not known" in document["detail"]
    seconds = monotonic() - began
    assert provider.asked - before <= 1 + seconds / COOLDOWN_SECONDS


def test_a_new_key_is_known_within_seconds_and_a_hanging_provider_holds_nobody_up(
    tiny: Tiny, provider: Provider
) -> None:
    provider.keys["two"] = ec.generate_private_key(ec.SECP256R1())
    new = provider.bearer("two")
    until(lambda: ask(tiny, new).status_code == 200, 15)
    provider.answers.clear()
    try:
        provider.keys["three"] = rsa.generate_private_key(65537, 2048)
        unknown = provider.bearer("three")
        waiting: list[float] = []

        def wait() -> None:
            began = monotonic()
            assert ask(tiny, unknown).status_code == 401
            waiting.append(monotonic() - began)

        before = provider.asked
        until(lambda: ask(tiny, unknown).status_code and provider.asked > before, 15)
        # While it is asked and doesn't answer, whoever has a known key is not held up.
        thread = threading.Thread(target=wait)
        thread.start()
        for _ in range(10):
            began = monotonic()
            assert ask(tiny, provider.bearer()).status_code == 200
            assert monotonic() - began < 10
        thread.join()
        assert waiting[0] < 10
    finally:
        provider.answers.set()


def test_nobody_is_believed_before_the_keys_were_read(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    tiny = of_provider(tmp_path, port)
    try:
        signer = Provider(free_ports(1)[0])
        answer = ask(tiny, signer.bearer())
        document = problem(answer, 503)
        assert "check JWKS_URL" in document["detail"]
        assert answer.headers["retry-after"]
        ready = httpx.get(f"{tiny.url}/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["identity provider"] is False
        # What the token says about itself is of no use, and neither is a local one.
        problem(ask(tiny, {"Authorization": "Bearer x.y.z"}), 401)
        provider = Provider(port)
        try:
            until(lambda: ask(tiny, provider.bearer()).status_code == 200, 20)
            assert httpx.get(f"{tiny.url}/readyz").json()["checks"]["identity provider"]
        finally:
            provider.close()
        # Away again: what was read is believed still.
        assert ask(tiny, provider.bearer()).status_code == 200
        signer.close()
    finally:
        ended(tiny)
