"""What the command says, as one reads it on a terminal: each transcript is typed against a real service.

A line that begins with `$ ` is typed; what follows is what is shown, and the exit status where it is not 0. `...` stands for what differs each time; all else, spaces included, is as it stands there. `^C` is typed when
what stands above it is shown. A line in brackets is done to the stage before the next one is typed (`Stage`). The
organization is called acme there, its servers have port 8200, and files lie in the working folder.
"""

import doctest
import re
import shlex
import signal
import subprocess
from contextlib import ExitStack
from itertools import takewhile

import pytest
from keystore_harness import wait_until, workspace
from keystore_harness.tenant import Tenant

from tests.conftest import PASSWORD, ROOT

TRANSCRIPTS = sorted((ROOT / "tests/integration/transcripts").glob("*.txt"))
COLUMNS = 80
LONGEST_S = 120
# As long as the name that it has in the transcripts, or else lines would be folded elsewhere; in no other name or id.
NAMES = {path.stem: f"zz{number:02}" for number, path in enumerate(TRANSCRIPTS)}
_HEADING = re.compile(r"[A-Z&]+(?: [A-Z&]+)*(?: {2,}[A-Z&]+(?: [A-Z&]+)*)+")
_SHOWN = doctest.OutputChecker()
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


def alike(shown, said):
    """Tell whether a text is what a transcript shows."""
    return _SHOWN.check_output(shown, said, doctest.ELLIPSIS)


def assert_columns_line_up(said):
    """Check that each cell of a table begins below its heading: `...` in a transcript would hide where it does."""
    lines = said.splitlines()
    for number, heading in enumerate(lines):
        if _HEADING.fullmatch(heading):
            begin = [cell.start() for cell in re.finditer(r"(?<=  )\S", heading)]
            for row in takewhile(lambda line: "  " in line, lines[number + 1 :]):
                assert row.startswith("    ") or {row[at - 2 : at].strip() for at in begin} == {""}, f"{heading}\n{row}"


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
        (folder / "master.key").symlink_to(self.testbed.service.data / "master.key")

    def close(self):
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
            if what == "is tested":
                wait_until(lambda: self._health(name)["server_certificate_not_after"], "a test of the keystore", 180)
            elif what == "is sealed":
                stack.enter_context(self.testbed.servers[server].sealed_for_a_while())
                wait_until(lambda: self._health(name)["status"] == "Offline", "the health check", 180)
            elif what == "has refused a deletion":
                wait_until(lambda: self.acme.admin.clean_ups(self.acme.name)[0]["attempts"], "a clean-up", 180)
            elif what == "is emptied":
                wait_until(lambda: not self.acme.admin.clean_ups(self.acme.name), "the clean-up", 180)
            elif what == "answers slowly":
                stack.enter_context(self.testbed.servers[server].rate_limited(4))
            elif what == "lets no one delete":
                place = Tenant(self.testbed.vaults[server], self.acme.tenancy(name), 1)
                stack.enter_context(place.may_not_delete())
            elif what == "is down":
                # For the command, that is: the service has its own.
                self.testbed.service.settings["database_url"] = "postgresql://keystore:secret@127.0.0.1:1/keystore"
                stack.callback(self.testbed.service.settings.pop, "database_url")
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
        if word == "DATABASE":
            return self.testbed.service.database_url
        if (self.folder / word).exists():
            return word
        for letter, vault in self.testbed.vaults.items():
            word = word.replace(f"https://vault-{letter}.example.com:8200", vault.address)
        return word.replace("acme", self.acme.name)

    def run(self, typed, shown, token):
        """Run a command until it ends, or until it has shown what stands above `^C`; return what it has shown."""
        service, first = self.testbed.service, shown.partition("^C\n")[0]
        environment = {
            **service.environment, "COLUMNS": str(COLUMNS), "KEYSTORE_EXPORT_PASSWORD": PASSWORD,
            "KEYSTORE_TOKEN": token, "KEYSTORE_URL": service.url,
            "PYTHONUNBUFFERED": "1",  # or else results stand behind what is said of them
        }  # fmt: skip
        # Tests that run in the background begin with SIGINT ignored.
        command = ["env", "--default-signal=INT", *service.command, *map(self.typed, shlex.split(typed)[2:])]
        with (self.folder / "said").open("w") as output:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)
        try:
            if first != shown:
                wait_until(lambda: process.poll() is not None or alike(first, self.read()), typed, LONGEST_S)
                process.send_signal(signal.SIGINT)
            status = process.wait(LONGEST_S)
        finally:
            process.kill()
            process.wait()
        return self.read(), status

    def read(self):
        """Return what is shown as it stands in the transcript."""
        lines = [line.rstrip() for line in (self.folder / "said").read_text().splitlines()]
        # What a process logs is for machines.
        text = "\n".join(line for line in lines if not line.startswith('{"'))
        return text.replace(f"{self.folder}/", "").replace(self.acme.name, "acme").strip("\n") + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_command_says(customer, admin_token, path):
    acme = customer(25, name=NAMES[path.stem], keystores=("first", "second"))
    # Not a folder of pytest: the path of a database's socket has to be short.
    stage = Stage(acme, workspace.current().subfolder("typed"))
    try:
        for typed, shown in steps(path.read_text()):
            if typed.startswith("("):
                stage.do(typed)
                continue
            said, status = stage.run(typed, shown, admin_token)
            assert max(map(len, said.splitlines())) <= COLUMNS, said
            assert_columns_line_up(said)
            if status:
                said += f"[{status}]\n"
            assert alike(shown.replace("^C\n", ""), said), f"{typed}\n{said}\ninstead of\n\n{shown}"
    finally:
        stage.close()
