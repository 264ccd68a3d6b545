"""Configuration: what is missing or wrong is named, all of it, and no secret is shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from services.bus.config import Config, ConfigError

PASSWORD = "hunter2-hunter2"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment that every service can be configured from."""
    (tmp_path / "profile.yaml").write_text("profile: test\n")
    return {
        "AMQP_URI": f"amqp://intake:{PASSWORD}@127.0.0.1:5672/huashi",
        "MONGODB_URI": f"mongodb://intake:{PASSWORD}@127.0.0.1:27017/huashi?authSource=huashi",
        "HTTP_BIND": "127.0.0.1:8001",
        "TOKEN_KEY": "k" * 32,
        "SEAL_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
        "PROFILES": str(tmp_path),
        "LEVEL": "household",
        "NOTIFY_LOG": str(tmp_path / "channel.jsonl"),
    }


def test_each_service_reads_its_own(environment: dict[str, str], tmp_path: Path) -> None:
    intake = Config.from_environment("intake", environment)
    assert (intake.instance, intake.level, intake.profiles) == ("intake", "", (tmp_path,))
    assert (intake.http_host, intake.http_port) == ("127.0.0.1", 8001)
    dispatch = Config.from_environment("dispatch", environment)
    assert dispatch.instance == "dispatch-household"
    assert (dispatch.seal_key, dispatch.profiles, dispatch.notify_log) == ("", (), None)
    notify = Config.from_environment("notify", environment)
    assert notify.notify_log == tmp_path / "channel.jsonl"
    assert (notify.seal_key, notify.webhook_allow) == (environment["SEAL_KEY"], ())
    assert (notify.webhook_origin, notify.webhook_pause_seconds) == ("huashi", 4 * 3600)
    assert notify.webhook_lease_seconds == 60
    assert (notify.batch_size, notify.batch_linger, notify.log_level) == (500, 0.02, "info")


def test_an_ipv6_address_is_bound_without_its_brackets(environment: dict[str, str]) -> None:
    config = Config.from_environment("intake", environment | {"HTTP_BIND": "[::1]:8001"})
    assert (config.http_host, config.http_port) == ("::1", 8001)


def test_everything_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        Config.from_environment("intake", {})
    names = [problem.split(" is not set: ")[0] for problem in raised.value.problems]
    assert names == [
        "HTTP_BIND",
        "AMQP_URI",
        "MONGODB_URI",
        "TOKEN_KEY",
        "SEAL_KEY",
        "PROFILES",
    ]


@pytest.mark.parametrize(
    ("service", "name", "value", "said"),
    [
        ("dispatch", "LEVEL", "House hold", "LEVEL is 'House hold': write the level"),
        ("intake", "HTTP_BIND", "8001", "HTTP_BIND is '8001': write host:port"),
        ("intake", "HTTP_BIND", "127.0.0.1:0", "HTTP_BIND is '127.0.0.1:0'"),
        ("intake", "HTTP_BIND", "127.0.0.1:70000", "HTTP_BIND is '127.0.0.1:70000'"),
        ("intake", "TOKEN_KEY", "short-secret", "TOKEN_KEY has only 12 characters"),
        ("intake", "TOKEN_KEY", "", "TOKEN_KEY is not set: write a secret"),
        ("intake", "TRUSTED_PROXIES", "10.0.0.1, proxy", "TRUSTED_PROXIES is 'proxy': write net"),
        ("intake", "TRUSTED_PROXIES", "10.0.0.1/8", "TRUSTED_PROXIES is '10.0.0.1/8'"),
        ("notify", "WEBHOOK_ALLOW", "town.example.cn", "WEBHOOK_ALLOW is 'town.example.cn': write"),
        ("notify", "WEBHOOK_ORIGIN", "https://x", "WEBHOOK_ORIGIN is 'https://x': write a host"),
        ("notify", "WEBHOOK_PAUSE_SECONDS", "0", "WEBHOOK_PAUSE_SECONDS is '0': write a number"),
        ("notify", "WEBHOOK_LEASE_SECONDS", "9", "WEBHOOK_LEASE_SECONDS is '9': write a number"),
        ("notify", "SEAL_KEY", "", "SEAL_KEY is not set: write 32 random bytes"),
        ("intake", "SEAL_KEY", "c2hvcnQ=", "SEAL_KEY is not a key: write 32 random bytes"),
        ("intake", "SEAL_KEY", "%%%", "SEAL_KEY is not a key"),
        ("intake", "PROFILES", "nowhere", "PROFILES names 'nowhere', which has no profile.yaml"),
        ("notify", "NOTIFY_LOG", "/nowhere/at/all", "NOTIFY_LOG is '/nowhere/at/all'"),
        ("intake", "LOG_LEVEL", "loud", "LOG_LEVEL is 'loud': choose debug, info"),
        ("intake", "BATCH_SIZE", "0", "BATCH_SIZE is '0': write a whole number from 1"),
        ("intake", "BATCH_SIZE", "1.5", "BATCH_SIZE is '1.5': write a whole number"),
        ("intake", "BATCH_LINGER", "nan", "BATCH_LINGER is 'nan': write a number from 0"),
        ("intake", "TIME_SCALE", "600", "TIME_SCALE needs TIME_ANCHOR"),
        ("intake", "TIME_SCALE", "fast", "TIME_SCALE is 'fast'"),
        ("intake", "MONGODB_URI", "mongodb://localhost:27017/", "MONGODB_URI names no database"),
    ],
)
def test_a_wrong_value_is_named_with_its_cure(
    environment: dict[str, str], service: str, name: str, value: str, said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        Config.from_environment(service, environment | {name: value})
    assert len(raised.value.problems) == 1
    assert said in str(raised.value)


def test_who_believes_an_identity_provider_says_whose_tokens_and_for_whom(
    environment: dict[str, str],
) -> None:
    environment["JWKS_URL"] = "https://id.example/keys"
    with pytest.raises(ConfigError, match="JWKS_URL and TOKEN_KEY are both set: keep one"):
        Config.from_environment("notify", environment)
    del environment["TOKEN_KEY"]
    with pytest.raises(ConfigError) as raised:
        Config.from_environment("notify", environment)
    names = [problem.partition(" is not set")[0] for problem in raised.value.problems]
    assert names == ["TOKEN_ISSUER", "TOKEN_AUDIENCE"]
    said = {"TOKEN_ISSUER": "https://id.example", "TOKEN_AUDIENCE": "huashi"}
    config = Config.from_environment("notify", environment | said)
    assert (config.jwks_url, config.token_key) == ("https://id.example/keys", "")
    assert (config.token_issuer, config.token_audience) == ("https://id.example", "huashi")
    for url in ("http://127.0.0.1:8080/keys", "http://[::1]:8080/keys"):
        assert Config.from_environment("notify", environment | said | {"JWKS_URL": url})
    for url, cure in (
        ("http://id.example/keys", "write https"),
        ("file:///etc/passwd", "write the https URL"),
        ("ftp://id.example/keys", "write https"),
        ("https://[/keys", "write the https URL"),
    ):
        with pytest.raises(ConfigError, match=cure):
            Config.from_environment("notify", environment | said | {"JWKS_URL": url})


def test_a_shared_key_has_our_own_issuer_and_audience(environment: dict[str, str]) -> None:
    config = Config.from_environment("notify", environment)
    assert (config.token_issuer, config.token_audience) == ("huashi", "huashi")
    assert config.trusted_proxies == ()


@pytest.mark.parametrize("name", ["AMQP_URI", "MONGODB_URI"])
def test_a_password_in_a_wrong_uri_is_not_shown(environment: dict[str, str], name: str) -> None:
    wrong = environment | {name: f"http://user:{PASSWORD}@127.0.0.1/"}
    with pytest.raises(ConfigError, match=f"{name} is not a URI of ") as raised:
        Config.from_environment("intake", wrong)
    assert PASSWORD not in str(raised.value)


def test_secrets_are_not_in_the_repr(environment: dict[str, str]) -> None:
    shown = repr(Config.from_environment("intake", environment))
    assert PASSWORD not in shown
    assert environment["TOKEN_KEY"] not in shown
    assert environment["SEAL_KEY"] not in shown


def test_a_service_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="no service 'intak': choose intake, dispatch"):
        Config.from_environment("intak", {})
