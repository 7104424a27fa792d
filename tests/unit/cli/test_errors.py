"""What the command says of an error: it names what can be typed."""

import sys

import pytest

from pulumi_keystore import cli
from pulumi_keystore.cli import output
from pulumi_keystore.client import Client
from pulumi_keystore.errors import InvalidInput


@pytest.mark.parametrize(
    ("typed", "call", "prop", "shown"),
    [
        ("monitor set acme first", "put_monitor", "recipients", "--recipient"),
        ("monitor set acme first --recipient x", "put_monitor", "recipients", "--recipient"),
        ("monitor set acme first", "put_monitor", "offline_minutes", "--offline-minutes"),
        ("register acme first", "put_keystore", "certificate_password", "--password-file"),
        ("register acme first --address=x", "put_keystore", "address", "--address"),
        # Arguments have no option, and an option of another command is none of this one.
        ("register acme first", "put_keystore", "organization", "organization"),
        ("organization create address", "put_organization", "address", "address"),
    ],
)
def test_an_error_names_the_option_that_sets_it_given_or_not(monkeypatch, capsys, typed, call, prop, shown):
    def refuse(*_):
        raise InvalidInput(f"{prop}: it is wrong", prop=prop)

    monkeypatch.setenv("KEYSTORE_TOKEN", "token")
    monkeypatch.setattr(Client, call, refuse)
    monkeypatch.setattr(sys, "argv", ["keystore", *typed.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"error: {shown}: it is wrong\n"


def test_options_that_are_called_otherwise_exist():
    commands, options = [cli.typer.main.get_command(cli.app)], set()
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        options |= {option for parameter in command.params for option in parameter.opts}
    assert {*output._OPTIONS.values()} <= options
