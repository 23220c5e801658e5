import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from taskflow_api.settings import WebhookSettings
from taskflow_api.webhooks.secrets import LostKeyError, Vault, new_secret, signed_headers
from taskflow_api.webhooks.url_policy import Policy
from taskflow_api.webhooks.wiring import policy_of
from taskflow_core.errors import Invalid

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def test_a_secret_has_the_form_and_length_of_standard_webhooks() -> None:
    secret = new_secret()
    assert secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    assert new_secret() != secret


def test_stored_secrets_are_encrypted_and_any_key_decrypts_them() -> None:
    sealed = Vault([OLD]).encrypt("whsec_abc")
    assert b"whsec" not in sealed
    assert Vault([NEW, OLD]).decrypt(sealed) == "whsec_abc"
    assert Vault([NEW]).decrypt(Vault([NEW, OLD]).encrypt("x")) == "x"
    with pytest.raises(LostKeyError, match="rotate the secret"):
        Vault([NEW]).decrypt(sealed)


@pytest.mark.parametrize("keys", [[], ["hunter2"], [OLD, "hunter2"]])
def test_an_invalid_key_prevents_the_start_and_is_not_revealed(keys: list[str]) -> None:
    with pytest.raises(Invalid, match="TASKFLOW_WEBHOOKS_KEY") as raised:
        Vault(keys)
    assert "hunter2" not in str(raised.value)


def test_while_rotating_either_secret_verifies_and_no_other() -> None:
    secrets = [new_secret(), new_secret()]
    body = '{"type": "task.succeeded"}'
    headers = signed_headers(secrets, "evt_1", datetime.now(UTC), body)
    assert len(headers["webhook-signature"].split()) == 2
    for secret in secrets:
        assert Webhook(secret).verify(body, headers) == {"type": "task.succeeded"}
    for wrong, changed in ((new_secret(), body), (secrets[0], body + " ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(wrong).verify(changed, headers)


def test_settings_come_as_lists_and_keys_from_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_WEBHOOKS_PORTS", "443, 9000")
    monkeypatch.setenv("TASKFLOW_WEBHOOKS_ALLOWED", "10.1.0.0/16, hooks.corp ,::1")
    monkeypatch.setenv("TASKFLOW_WEBHOOKS_KEY", f"{NEW},{OLD}")
    settings = WebhookSettings()
    assert settings.keys() == [NEW, OLD]
    assert policy_of(settings) == Policy.of((443, 9000), ("10.1.0.0/16", "::1/128", "HOOKS.corp"), http=False)
    (tmp_path / "key").write_text(OLD + "\n")
    monkeypatch.setenv("TASKFLOW_WEBHOOKS_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(Invalid, match="both set"):
        WebhookSettings().keys()
    monkeypatch.delenv("TASKFLOW_WEBHOOKS_KEY")
    assert WebhookSettings().keys() == [OLD]
    monkeypatch.setenv("TASKFLOW_WEBHOOKS_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(Invalid, match="No such file"):
        WebhookSettings().keys()
    monkeypatch.setenv("TASKFLOW_WEBHOOKS_ALLOWED", "10.1.0.0/33")
    with pytest.raises(Invalid, match="expected an address, a network"):
        policy_of(WebhookSettings())
    monkeypatch.setenv("TASKFLOW_WEBHOOKS_PORTS", "http")
    with pytest.raises(ValidationError):
        WebhookSettings()
