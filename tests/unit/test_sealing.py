"""Who reports is sealed to intake on the way: what opens it, and what is said of what does not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import ECKey

from services.bus.sealing import ALGORITHM, ENCRYPTION, NotOpened, Unsealer, new_key

OLD, NEW = new_key(), new_key()
PERSON = {"name": "林某", "phone": "13987652222"}


def sealed(unsealer: Unsealer, content: Any = PERSON, **head: Any) -> str:
    """As the documentation tells another system to do it."""
    (public,) = unsealer.public()["keys"]
    kept = {"alg": ALGORITHM, "enc": ENCRYPTION, "kid": public["kid"], **head}
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return jwe.encrypt_compact(kept, raw, ECKey.import_key(public), algorithms=None)


def test_what_was_sealed_to_the_key_before_is_opened_until_that_is_taken_away() -> None:
    before = sealed(Unsealer([OLD]))
    both = Unsealer([NEW, OLD])
    assert len(both.public()["keys"]) == 1
    assert both.open(before) == PERSON
    assert both.open(sealed(both)) == PERSON
    with pytest.raises(NotOpened, match="not ours"):
        Unsealer([NEW]).open(before)
    assert Unsealer([]).public() == {"keys": []}


def test_nothing_private_is_published() -> None:
    (public,) = Unsealer([NEW]).public()["keys"]
    assert public.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"zip": "DEF"}, "zip: leave it out"),
        ({"kid": None}, "no kid"),
        ({"kid": "other"}, "not ours"),
        ({"alg": "ECDH-ES"}, "write alg"),
        ({"enc": "A128CBC-HS256"}, "write alg"),
        ({"crit": ["x"], "x": 1}, "leave it out"),
        ({"epk": 1}, "can't be opened"),
        ({"epk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}, "can't be opened"),
    ],
)
def test_a_head_that_is_not_as_we_want_it_is_refused(change: dict[str, Any], said: str) -> None:
    unsealer = Unsealer([NEW])
    head, rest = sealed(unsealer).split(".", 1)
    known = json.loads(base64.urlsafe_b64decode(head + "=="))
    raw = base64.urlsafe_b64encode(json.dumps({**known, **change}).encode()).decode()
    with pytest.raises(NotOpened, match=said):
        unsealer.open(f"{raw.rstrip('=')}.{rest}")


def test_what_is_no_json_is_refused_and_not_shown() -> None:
    unsealer = Unsealer([NEW])
    with pytest.raises(NotOpened) as wrong:
        unsealer.open(sealed(unsealer, b"13987652222"[:5] + b"{"))
    assert "139" not in str(wrong.value)
    assert wrong.value.__cause__ is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(epk=JSON, parts=st.lists(st.text(alphabet="AbZ09-_=é", max_size=40), min_size=4, max_size=4))
def test_rubbish_is_not_opened_and_nothing_else_happens(epk: Any, parts: list[str]) -> None:
    unsealer = Unsealer([NEW])
    (public,) = unsealer.public()["keys"]
    head = {"alg": ALGORITHM, "enc": ENCRYPTION, "kid": public["kid"], "epk": epk}
    raw = base64.urlsafe_b64encode(json.dumps(head).encode()).decode().rstrip("=")
    with pytest.raises(NotOpened):
        unsealer.open(".".join([raw, *parts]))
    with pytest.raises(NotOpened):
        unsealer.open(".".join(parts))


@pytest.mark.parametrize("key", ["", "AAAA", "%%%", base64.b64encode(bytes(60)).decode()])
def test_what_is_no_key_is_not_taken(key: str) -> None:
    with pytest.raises(ValueError, match="it "):
        Unsealer([key])
