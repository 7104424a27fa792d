"""What travels with the page of a form that is not confirmed yet opens where it was made alone."""

import base64
from datetime import timedelta

import pytest

from pulumi_keystore.control_plane.console import drafts
from pulumi_keystore.control_plane.keystores.swapping import Edit
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.errors import Conflict

KEY = MasterKey(bytes(32))
DECLARED = Declaration(kind="self-administered", address="https://vault.example.com:8200", certificate="CANARY")


def test_a_draft_opens_in_its_session():
    text = drafts.seal(KEY, "acme", "token", "second", DECLARED)
    assert drafts.unseal(KEY, "acme", "token", text, Declaration) == ("second", DECLARED)
    assert b"CANARY" not in base64.urlsafe_b64decode(text)


@pytest.mark.parametrize(
    ("key", "organization", "token"),
    [(MasterKey(bytes(31) + b"1"), "acme", "token"), (KEY, "other", "token"), (KEY, "acme", "another")],
)
def test_a_draft_opens_nowhere_else(key, organization, token):
    text = drafts.seal(KEY, "acme", "token", "second", DECLARED)
    with pytest.raises(Conflict, match="expired"):
        drafts.unseal(key, organization, token, text, Declaration)


def test_a_draft_of_an_edit_is_none_of_a_keystore():
    edit = Edit("https://vault.example.com:8200", "CANARY", "secret")
    text = drafts.seal(KEY, "acme", "token", "first", edit)
    assert drafts.unseal(KEY, "acme", "token", text, Edit) == ("first", edit)
    with pytest.raises(Conflict, match="expired"):
        drafts.unseal(KEY, "acme", "token", text, Declaration)


@pytest.mark.parametrize("text", ["", "x", "é", "AAAA", "A" * 1000])
def test_what_is_no_draft_is_refused(text):
    with pytest.raises(Conflict):
        drafts.unseal(KEY, "acme", "token", text, Declaration)


def test_a_draft_ends(monkeypatch):
    text = drafts.seal(KEY, "acme", "token", "second", DECLARED)
    later = drafts.now_utc() + timedelta(minutes=31)
    monkeypatch.setattr(drafts, "now_utc", lambda: later)
    with pytest.raises(Conflict, match="expired"):
        drafts.unseal(KEY, "acme", "token", text, Declaration)
