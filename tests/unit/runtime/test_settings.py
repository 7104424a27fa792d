"""Settings that cannot work are found at the start, in one line that holds no secret."""

import pytest
from pydantic import ValidationError

from pulumi_keystore.control_plane.runtime.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mail_from", "Name <keystore@example.com>"),
        ("mail_from", "keystore"),
        ("mail_from", "keystore@"),
        ("mail_from", "keystore@example.com\nBcc: x@example.com"),
        ("mail_sender_name", "A\r\nBcc: x@example.com"),
        ("smtp_url", "mail.example.com:25"),
        ("smtp_url", "smtp://"),
        ("smtp_url", "smtp://mail.example.com:port"),
        ("smtp_url", "smtp://mail.example.com:99999"),
        ("smtp_url", "smtp://me:CANARY@mail.example.com:0"),
        ("smtp_url", "http://me:CANARY@mail.example.com"),
        ("smtp_url", "smtp://me:CANARY@mail.example.com/path"),
        ("smtp_ca", "/nowhere/ca.pem"),
        ("webhook_ca", "/nowhere/ca.pem"),
        ("webhook_ca", "/etc/hostname"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(name, value):
    with pytest.raises(ValidationError) as caught:
        Settings(**{name: value})
    (error,) = caught.value.errors(include_input=False, include_url=False)
    assert error["loc"] == (name,)
    assert "CANARY" not in error["msg"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mail_from", "keystore@localhost"),
        ("mail_from", "keystore@example.com"),
        ("smtp_url", ""),
        ("smtp_url", "smtp://mail.example.com"),
        ("smtp_url", "smtps://me:p%40ss@mail.example.com:465"),
    ],
)
def test_a_setting_that_works_is_taken(name, value):
    assert getattr(Settings(**{name: value}), name) == value
