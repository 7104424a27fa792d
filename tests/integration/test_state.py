"""State that was written by each version so far: read, refreshed, updated and destroyed by this one.

`WRITE_STATE=1 pytest tests/integration/test_state.py` keeps that of this version, with names for all that differs from run
to run and for all that is secret.
"""

import json
import os
import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from keystore_harness.engine import PulumiStack

from pulumi_keystore.errors import NotFound
from tests.conftest import PASSWORD, Customer

VERSION = version("pulumi-keystore")
STATES = Path(__file__).parent / "states"
_ID = "[0-9a-f]{8}-[0-9a-f-]{27}"
MARK = "0123456789abcdef"
HOOK = "https://hooks.example.com/CANARY"
VOLATILE = (
    "manifest",
    "created",
    "modified",
    "pending_operations",
    "metadata",
    "secrets_providers",
    "sourcePosition",
    "stackTrace",
)


def resources(acme: Customer, certificates: dict[str, str]):
    """One of each resource."""
    keystores = [
        (
            "Keystore",
            name,
            {
                "organization": acme.name,
                "kind": "self-administered",
                "address": acme.testbed.vaults[acme.letters[name]].address,
                "certificate": certificates[name],
                "certificate_password": PASSWORD,
                "server_ca": acme.testbed.ca.pem,
            },
            {"protect": False},
        )
        for name in ("first", "second")
    ]
    watch = {"keystore": "first", "organization": acme.name, "recipients": ["ops@example.com"], "webhook": HOOK}
    active = {"organization": acme.name, "destination": "first", "notify_email": "ops@example.com"}
    return [
        ("Organization", acme.name, {}, {}),
        *keystores,
        ("HealthMonitor", "watch", watch, {}),
        ("KeystoreMigration", "active", active, {}),
    ]


def certificate(acme: Customer, days: int = 400) -> str:
    ends = datetime.now(UTC) + timedelta(days=days)
    return b64encode(acme.testbed.ca.issue(acme.name, not_after=ends).pkcs12(PASSWORD)).decode()


def both(acme: Customer) -> dict[str, str]:
    """Certificates that nobody takes for each other."""
    return {"first": certificate(acme, 410), "second": certificate(acme, 420)}


def names(acme: Customer, stack: PulumiStack, certificates: dict[str, str]) -> dict[str, str]:
    """What differs from run to run, by the name that stands for it in a kept state."""
    found = {
        "organization": acme.name,
        "stack": stack.name,
        "password": PASSWORD,
        "server_ca": acme.testbed.ca.pem,
    }
    for keystore in ("first", "second"):
        known = acme.admin.keystore(acme.name, keystore)
        found |= {
            f"{keystore}_{prop}": str(known[prop])
            for prop in ("address", "certificate_fingerprint", "certificate_not_after", "cluster_id")
        }
        found[f"{keystore}_certificate"] = certificates[keystore]
    found["webhook_fingerprint"] = acme.admin.monitor(acme.name, "first")["webhook_fingerprint"]
    return found


def generic(state: dict, values: dict[str, str]) -> dict:
    """A state with names in place of values."""
    text = json.dumps(plain(state))
    # The SDK's own provider has an id that it makes up.
    text = re.sub(rf'(default::|"id": "){_ID}', rf"\g<1>{UUID(int=0)}", text)
    text = re.sub(r'"mark": "[0-9a-f]{16}"', '"mark": "<mark>"', text)
    for name, value in sorted(values.items(), key=lambda item: -len(item[1])):
        # A secret's text is JSON in JSON.
        text = text.replace(json.dumps(json.dumps(value))[1:-1], f'\\"<{name}>\\"').replace(
            json.dumps(value)[1:-1], f"<{name}>"
        )
    return json.loads(text)


def particular(kept: str, values: dict[str, str]) -> str:
    """A kept state with values in place of names."""
    for name, value in values.items():
        kept = kept.replace(f'\\"<{name}>\\"', json.dumps(json.dumps(value))[1:-1]).replace(
            f"<{name}>", json.dumps(value)[1:-1]
        )
    return kept


def plain(state):
    """What a state is about."""
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items() if name not in VOLATILE}
    return [plain(value) for value in state] if isinstance(state, list) else state


def without_pickles(state):
    """A state without how providers are pickled, which differs between Pythons."""
    if isinstance(state, dict):
        return {name: without_pickles(value) for name, value in state.items() if name != "__provider"}
    return [without_pickles(value) for value in state] if isinstance(state, list) else state


def test_the_state_has_the_form_that_is_kept(acme, made, tmp_path):
    certificates = both(acme)
    made.declare(*resources(acme, certificates))
    made.stack.up()
    exported = json.loads(made.stack.run("stack", "export", "--show-secrets").stdout)
    state = generic(exported, names(acme, made.stack, certificates))
    assert "CANARY" not in json.dumps(state).replace(HOOK, "")
    kept = STATES / f"{VERSION}.json"
    if os.environ.get("WRITE_STATE") == "1":
        STATES.mkdir(exist_ok=True)
        kept.write_text(json.dumps(state, indent=1) + "\n")
    assert without_pickles(state) == without_pickles(json.loads(kept.read_text())), (
        "what is written into users' state has changed: see that older ones are still read, and keep this one (WRITE_STATE=1)"
    )


@pytest.mark.parametrize("kept", sorted(STATES.glob("*.json")), ids=lambda kept: kept.stem)
def test_a_kept_state_is_refreshed_updated_and_destroyed(kept, acme, made, tmp_path):
    certificates = both(acme)
    marked = "<mark>" in kept.read_text()
    mark = MARK if marked else ""
    acme.admin.put_organization(acme.name, mark=mark)
    for name in ("first", "second"):
        acme.admin.put_keystore(acme.name, name, acme.declaration(name, certificate=certificates[name]), mark=mark)
    acme.admin.put_monitor(acme.name, "first", {"recipients": ["ops@example.com"], "webhook": HOOK}, mark=mark)
    state = tmp_path / "kept.json"
    ours = json.loads(particular(kept.read_text(), {**names(acme, made.stack, certificates), "mark": MARK}))
    salt = yaml.safe_load(made.stack.settings.read_text())["encryptionsalt"]
    ours["deployment"]["secrets_providers"] = {"type": "passphrase", "state": {"salt": salt}}
    state.write_text(json.dumps(ours))
    made.stack.run("stack", "import", "--file", str(state))
    made.declare(*resources(acme, certificates))
    assert "6 unchanged" in made.stack.refresh().stdout
    assert "6 unchanged" in made.stack.preview().stdout
    certificates["first"] = certificate(acme)
    made.declare(*resources(acme, certificates))
    assert "1 updated" in made.stack.up().stdout
    said = made.stack.destroy().stdout
    assert "6 deleted" in said
    assert "and stays" not in said
    with pytest.raises(NotFound):
        acme.admin.organization(acme.name)
