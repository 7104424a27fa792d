"""The API under generated requests, good and bad, by its own description: nothing makes it fail (HTTP 5xx)."""

import secrets

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from keystore_harness.service import ServiceProcess

from pulumi_keystore.client import Client
from pulumi_keystore.control_plane import app
from pulumi_keystore.control_plane.api.problems import Problem
from pulumi_keystore.errors import PROBLEM_TYPES, KeystoreError, _tree
from tests.conftest import WHOLE


@pytest.fixture(scope="module")
def fuzzed():
    """A service of its own: what is generated stays in it."""
    with ServiceProcess({"health_checks": "false"}) as service:
        token = service.make_token("ops", "provider-admin")
        with Client(service.url, token) as admin:
            admin.put_organization("acme")
            admin.put_keystore("acme", "old", {"kind": "legacy"})
        yield service, token


KNOWN = {"about:blank", *(PROBLEM_TYPES + code for code in _tree(KeystoreError))}
"""What the type of a problem document may be."""
schema = schemathesis.openapi.from_dict(app.create(None).openapi())


@schema.parametrize()
@settings(max_examples=40 if WHOLE else 15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_makes_the_service_fail(case, fuzzed):
    service, token = fuzzed
    if case.path_parameters and secrets.randbelow(2):
        # Otherwise nearly every request would end with "there is no such organization".
        known = {"organization": "acme", "name": "old"}
        case.path_parameters |= {name: known[name] for name in case.path_parameters if name in known}
    answer = case.call(base_url=service.url, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == ["application/problem+json"]
        problem = Problem.model_validate(answer.json())
        assert problem.status == answer.status_code
        assert problem.type in KNOWN


@pytest.mark.parametrize(
    "path",
    ["/v1/organizations?search=%00", "/v1/organizations?after=%00", "/metrics?organization=%00", "/console?search=%00",
     "/v1/organizations?limit=3&problem=offline&search=a%00"],
)  # fmt: skip
def test_a_text_that_the_database_cannot_hold_is_the_sender_s_mistake(fuzzed, path):
    service, token = fuzzed
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {token}"}) as client:
        client.post("/console/sign-in", data={"token": token})
        assert client.get(path).status_code == 422
