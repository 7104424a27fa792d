"""What the command says, as one reads it on a terminal: each transcript is typed against a real service.

A line that begins with `$ ` is typed; what follows is what is shown, standard error first, and the exit status where it
is not 0. `...` stands for what differs each time. A line in brackets is done to the stage before the next one is typed
(`Stage`). The organization is called acme there, its servers have port 8200, and files lie in the working folder.
"""

import doctest
import re
import shlex
from contextlib import ExitStack

import pytest
from keystore_harness import wait_until
from keystore_harness.tenant import Tenant

from tests.conftest import PASSWORD, ROOT

TRANSCRIPTS = sorted((ROOT / "tests/integration/transcripts").glob("*.txt"))
COLUMNS = 80
_SHOWN = doctest.OutputChecker()
_AS_READ = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
CHECKED = """\
keystores:
  - organization: acme
    name: first
    address: https://vault.example.com:8200
    kind: self-administered
    certificate: acme.p12
    certificate_password_env: KEYSTORE_EXPORT_PASSWORD
    protect: true
monitors:
  - organization: acme
    keystore: first
    recipients: [security@example.com]
"""


def steps(text):
    """Return what is done and typed in a transcript, and what is shown after each."""
    _, *parts = re.split(r"^(?=\$ keystore|\()", text, flags=re.MULTILINE)
    return [(typed, shown.strip("\n") + "\n") for typed, _, shown in (part.partition("\n") for part in parts)]


class Stage:
    """What is done between the lines of a transcript, and the files that it names."""

    def __init__(self, acme, folder):
        self.acme, self.testbed, self.folder = acme, acme.testbed, folder
        self._open = {}
        for name in ("acme.p12", "new.p12"):
            (folder / name).write_bytes(self.testbed.ca.issue(acme.name).pkcs12(PASSWORD))
        (folder / "password").write_text(PASSWORD)
        (folder / "ca.pem").write_text(self.testbed.ca.pem)
        (folder / "keystores.yaml").write_text(CHECKED)
        (folder / "mistakes.yaml").write_text(
            CHECKED.replace("vault.example.com", "10.0.0.1").replace("acme.p12", "no.p12")
        )
        # The harness hands every setting to the command, as a variable of the environment.
        self.testbed.service.settings["export_password"] = PASSWORD

    def close(self):
        self.testbed.service.settings.pop("export_password")
        for opened in list(self._open):
            self._open.pop(opened).close()

    def do(self, direction):
        """Do what a line in brackets says."""
        begun, name, what = re.fullmatch(r"\((from now on|no more): (\w+) (.*)\)", direction).groups()
        if begun == "no more":
            self._open.pop((name, what)).close()
            return
        server = {"first": "a", "second": "b", "again": "b"}.get(name, "")
        with ExitStack() as stack:
            if what == "is sealed":
                # What is known of the server from a test that it passed is shown while it is sealed, too.
                wait_until(lambda: self._health(name)["server_certificate_not_after"], "a test of the keystore", 180)
                stack.enter_context(self.testbed.servers[server].sealed_for_a_while())
                wait_until(lambda: self._health(name)["status"] == "Offline", "the health check", 180)
            elif what == "answers slowly":
                stack.enter_context(self.testbed.servers[server].rate_limited(4))
            elif what == "lets no one delete":
                place = Tenant(self.testbed.vaults[server], self.acme.tenancy(name), 1)
                stack.enter_context(place.may_not_delete())
            elif what == "keeps keys for an hour":
                service = self.testbed.service
                service.settings["retain_s"] = "3600"
                service.restart()
                stack.callback(service.restart)
                stack.callback(service.settings.pop, "retain_s")
            else:
                raise AssertionError(direction)
            self._open[name, what] = stack.pop_all()

    def _health(self, keystore):
        return self.acme.admin.health(self.acme.name, keystore)

    def typed(self, word):
        """Return what a word of a command stands for."""
        if word == "NUMBER":
            return str(self.acme.admin.clean_ups(self.acme.name)[0]["id"])
        if word == "TOKEN":
            return self.acme.admin.tokens()[-1]["id"]
        if word.endswith((".p12", ".pem", ".yaml")) or word == "password":
            return str(self.folder / word) if (self.folder / word).exists() else word
        for letter, vault in self.testbed.vaults.items():
            word = word.replace(f"https://vault-{letter}.example.com:8200", vault.address)
        return word.replace("acme", self.acme.name)

    def read(self, text):
        """Return what is shown as it stands in the transcript."""
        return text.replace(f"{self.folder}/", "").replace(self.acme.name, "acme")


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_command_says(customer, admin_token, path, tmp_path):
    acme = customer(25, keystores=("first", "second"))
    stage = Stage(acme, tmp_path)
    try:
        for typed, shown in steps(path.read_text()):
            if typed.startswith("("):
                stage.do(typed)
                continue
            arguments = [stage.typed(word) for word in shlex.split(typed)[2:]]
            done = acme.testbed.service.run(*arguments, token=admin_token, check=False, columns=COLUMNS)
            said = stage.read(done.stderr + done.stdout).strip("\n") + "\n"
            if done.returncode:
                said += f"[{done.returncode}]\n"
            for line in stage.read(done.stdout).splitlines():
                assert len(line) <= COLUMNS, line
            assert _SHOWN.check_output(shown, said, _AS_READ), f"{typed}\n{said}\ninstead of\n\n{shown}"
    finally:
        stage.close()
