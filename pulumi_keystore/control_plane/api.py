"""The HTTP API: thin routes over the control plane. Errors are problem documents (RFC 9457)."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulumi_keystore.certificate import now_utc
from pulumi_keystore.control_plane import archive_keys, history, keystores, migrations, organizations, tokens
from pulumi_keystore.control_plane.clean_ups import CleanUps
from pulumi_keystore.control_plane.models import Keystore
from pulumi_keystore.control_plane.plane import ControlPlane
from pulumi_keystore.control_plane.tokens import Principal, Right
from pulumi_keystore.declaration import Declaration
from pulumi_keystore.errors import InvalidInput, KeystoreError, NotFound, ServiceUnavailable

MAX_BODY_BYTES: Final = 8 << 20
MAX_BATCH: Final = 2000
_log = structlog.get_logger(__name__)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", str_max_length=4 << 20, hide_input_in_errors=True)


class OrganizationBody(_Body):
    """An organization to be."""

    environment: str = Field(default="cloud", description="cloud or federal")


class KeystoreBody(_Body):
    """The declaration of a keystore."""

    kind: str = Field(description="provider, self-administered or legacy")
    address: str | None = Field(default=None, description="https://HOST:PORT")
    certificate: SecretStr | None = Field(default=None, description="base64 of the PKCS#12 file")
    certificate_password: SecretStr | None = Field(default=None, description="export password of the PKCS#12 file")
    server_ca: str | None = Field(default=None, description="CA certificates in PEM; public CAs if missing")
    mount: str | None = Field(default=None, description="KV mount, archive-keys by default")
    role: str | None = Field(default=None, description="certificate role, keystore-ORGANIZATION by default")

    def declared(self) -> Declaration:
        """Return what was declared."""
        return Declaration(
            kind=self.kind,
            address=self.address,
            certificate=self.certificate.get_secret_value() if self.certificate else None,
            certificate_password=self.certificate_password.get_secret_value() if self.certificate_password else None,
            server_ca=self.server_ca,
            mount=self.mount,
            role=self.role,
        )


class PlanBody(_Body):
    """Where keys would go."""

    destination: str = Field(description="name of the keystore that shall become active")


class MigrationBody(PlanBody):
    """Where keys shall go, and who is told."""

    notify_email: str | None = Field(default=None, description="gets the mails about this migration")


class EscrowBody(_Body):
    """Archive keys to put into escrow."""

    keys: dict[str, SecretStr] = Field(description="base64 of 32 bytes, by user id", max_length=MAX_BATCH)


class ReleaseBody(_Body):
    """Whose archive key, and to whom it is encrypted."""

    user: str
    public_key: str = Field(description="X25519 public key, base64 of 32 bytes")


class TokenBody(_Body):
    """A token to be."""

    name: str
    role: str = Field(description="provider-admin, customer-cloud-admin, authority or viewer")
    organization: str | None = Field(default=None, description="the one organization it is for; all if missing")
    days: int | None = Field(default=None, description="lifetime in days; without end if missing")


_bearer = HTTPBearer(auto_error=False, description="an API token of `keystore token create`")


def _principal(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    plane: ControlPlane = request.app.state.plane
    with plane.transaction() as session:
        who = tokens.authenticate(session, credentials.credentials if credentials else None, now_utc())
    request.state.principal = who.name
    return who


Who = Annotated[Principal, Depends(_principal)]


def create(plane: ControlPlane, clean_ups: CleanUps, begin: Callable[[str], None]) -> FastAPI:  # noqa: C901, PLR0915 - a table of routes
    """Return the application.

    Args:
        plane: What it works with.
        clean_ups: The clean-ups that migrations leave.
        begin: Starts the workflow of a migration by its id.

    """
    app = FastAPI(
        title="pulumi-keystore control plane",
        version=version("pulumi-keystore"),
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.plane = plane
    app.add_middleware(_BodyLimit)
    _handle_errors(app)

    @app.middleware("http")
    async def log_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.monotonic()
        response = await call_next(request)
        route = request.scope.get("route")
        _log.info(
            "request",
            method=request.method,
            path=getattr(route, "path", "unknown"),
            status=response.status_code,
            ms=round((time.monotonic() - started) * 1000, 1),
            by=getattr(request.state, "principal", None),
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.get("/v1/health", tags=["service"])
    def health() -> dict[str, Any]:
        """Tell that the service runs; needs no token."""
        return {"status": "ok", "version": app.version}

    @app.get("/v1/whoami", tags=["service"])
    def whoami(who: Who) -> dict[str, Any]:
        """Tell whom the token stands for."""
        return {"name": who.name, "role": who.role, "organization": who.organization}

    # Organizations.

    @app.get("/v1/organizations", tags=["organizations"])
    def list_organizations(who: Who) -> list[dict[str, Any]]:
        """List the organizations that the token may see."""
        who.require(Right.VIEW, who.organization)
        with plane.transaction() as session:
            return [
                organizations.describe(session, row)
                for row in organizations.list_all(session)
                if who.organization in (None, row.name)
            ]

    @app.get("/v1/organizations/{organization}", tags=["organizations"])
    def get_organization(organization: str, who: Who) -> dict[str, Any]:
        """Return one organization."""
        who.require(Right.VIEW, organization)
        with plane.transaction() as session:
            return organizations.describe(session, organizations.find(session, organization))

    @app.put("/v1/organizations/{organization}", tags=["organizations"])
    def put_organization(organization: str, body: OrganizationBody, who: Who) -> dict[str, Any]:
        """Create an organization, or return the one there is."""
        who.require(Right.MANAGE, organization)
        with plane.transaction() as session:
            return organizations.describe(session, organizations.put(session, organization, body.environment))

    @app.delete("/v1/organizations/{organization}", tags=["organizations"], status_code=204)
    def delete_organization(organization: str, who: Who) -> None:
        """Delete an organization that has no keystores and no keys."""
        who.require(Right.MANAGE, organization)
        with plane.transaction() as session:
            organizations.remove(session, organization)

    @app.get("/v1/organizations/{organization}/status", tags=["organizations"])
    def status(organization: str, who: Who) -> dict[str, Any]:
        """Return the active keystore, its connection (tested now), and the running migration."""
        who.require(Right.VIEW, organization)
        with plane.transaction() as session:
            owner = organizations.find(session, organization)
            shown = organizations.describe(session, owner)
            active = session.get(Keystore, owner.active_keystore_id) if owner.active_keystore_id else None
            shown["keystore"] = keystores.describe(owner, active) if active else None
            shown["migration"] = None
            if owner.maintenance_by:
                row = migrations.load(session, owner.maintenance_by).migration
                shown["migration"] = migrations.describe(session, owner, row, now_utc())
        shown["connection"] = keystores.test_connection(plane, owner, active) if active else None
        return shown

    @app.get("/v1/organizations/{organization}/history", tags=["organizations"])
    def get_history(organization: str, who: Who, limit: int = 1000) -> list[dict[str, Any]]:
        """Return the history, oldest first."""
        who.require(Right.VIEW, organization)
        with plane.transaction() as session:
            owner = organizations.find(session, organization)
            return history.entries(session, owner.id, max(1, min(limit, 10_000)))

    # Keystores.

    @app.get("/v1/organizations/{organization}/keystores", tags=["keystores"])
    def list_keystores(organization: str, who: Who) -> list[dict[str, Any]]:
        """List the keystores of an organization."""
        who.require(Right.VIEW, organization)
        with plane.transaction() as session:
            return keystores.list_all(session, organizations.find(session, organization))

    @app.get("/v1/organizations/{organization}/keystores/{name}", tags=["keystores"])
    def get_keystore(organization: str, name: str, who: Who) -> dict[str, Any]:
        """Return one keystore."""
        who.require(Right.VIEW, organization)
        with plane.transaction() as session:
            owner = organizations.find(session, organization)
            return keystores.describe(owner, keystores.find(session, owner, name))

    @app.put("/v1/organizations/{organization}/keystores/{name}", tags=["keystores"])
    def put_keystore(
        organization: str, name: str, body: KeystoreBody, who: Who, *, adopt: bool = False
    ) -> dict[str, Any]:
        """Prove a keystore and register it; with `adopt` take over one that is registered differently."""
        who.require(Right.MANAGE, organization)
        shown, warnings = keystores.put(plane, who, organization, name, body.declared(), adopt=adopt)
        return {**shown, "warnings": warnings}

    @app.post("/v1/organizations/{organization}/keystores/{name}/swap", tags=["keystores"])
    def swap_keystore(organization: str, name: str, body: KeystoreBody, who: Who) -> dict[str, Any]:
        """Prove a new address, certificate or both, and swap them in; on any failure the old pair stays."""
        who.require(Right.MANAGE, organization)
        shown, warnings = keystores.swap(plane, who, organization, name, body.declared())
        return {**shown, "warnings": warnings}

    @app.delete("/v1/organizations/{organization}/keystores/{name}", tags=["keystores"], status_code=204)
    def delete_keystore(organization: str, name: str, who: Who) -> None:
        """Forget a keystore; refused while it is active and holds keys."""
        who.require(Right.MANAGE, organization)
        keystores.remove(plane, who, organization, name)

    # Migrations.

    @app.post("/v1/organizations/{organization}/migrations/plan", tags=["migrations"])
    def plan_migration(organization: str, body: PlanBody, who: Who) -> dict[str, Any]:
        """Say what a migration would do; nothing is changed."""
        who.require(Right.VIEW, organization)
        return migrations.plan(plane, organization, body.destination)

    @app.post("/v1/organizations/{organization}/migrations", tags=["migrations"])
    def start_migration(organization: str, body: MigrationBody, who: Who) -> dict[str, Any]:
        """Begin a migration, or attach to the one that goes there; state "unchanged" if nothing has to move."""
        who.require(Right.MANAGE, organization)
        migration_id, new = migrations.start(plane, who, organization, body.destination, body.notify_email, clean_ups)
        if migration_id is None:
            return {"id": None, "state": "unchanged", "organization": organization, "destination": body.destination}
        if new:
            begin(migration_id)
        return _migration(organization, migration_id)

    @app.get("/v1/organizations/{organization}/migrations", tags=["migrations"])
    def list_migrations(organization: str, who: Who) -> list[dict[str, Any]]:
        """List the migrations of an organization, the latest first."""
        who.require(Right.VIEW, organization)
        with plane.transaction() as session:
            return migrations.list_all(session, organizations.find(session, organization), now_utc())

    @app.get("/v1/organizations/{organization}/migrations/{migration_id}", tags=["migrations"])
    def get_migration(organization: str, migration_id: str, who: Who) -> dict[str, Any]:
        """Return a migration with its progress."""
        who.require(Right.VIEW, organization)
        return _migration(organization, migration_id)

    def _migration(organization: str, migration_id: str) -> dict[str, Any]:
        with plane.transaction() as session:
            owner = organizations.find(session, organization)
            row = migrations.find(session, owner, migration_id)
            return migrations.describe(session, owner, row, now_utc())

    # Archive keys.

    @app.post("/v1/organizations/{organization}/archive-keys", tags=["archive keys"])
    def escrow(organization: str, body: EscrowBody, who: Who) -> dict[str, Any]:
        """Put users' archive keys into escrow, all or nothing."""
        who.require(Right.ESCROW, organization)
        keys = {user: archive_keys.decode_key(key.get_secret_value()) for user, key in body.keys.items()}
        return {"enrolled": archive_keys.escrow(plane, organization, keys), "given": len(keys)}

    @app.post("/v1/organizations/{organization}/archive-keys/release", tags=["archive keys"])
    def release(organization: str, body: ReleaseBody, who: Who) -> dict[str, Any]:
        """Return a user's archive key, encrypted to the caller's public key (HPKE, RFC 9180)."""
        who.require(Right.ESCROW, organization)
        sealed = archive_keys.release(plane, organization, body.user, body.public_key)
        return {"user": body.user, "sealed_key": b64encode(sealed).decode()}

    # Tokens.

    @app.get("/v1/tokens", tags=["tokens"])
    def list_tokens(who: Who) -> list[dict[str, Any]]:
        """List all tokens, without their secrets."""
        who.require(Right.ADMINISTER)
        with plane.transaction() as session:
            return tokens.list_all(session)

    @app.post("/v1/tokens", tags=["tokens"])
    def create_token(body: TokenBody, who: Who) -> dict[str, Any]:
        """Make a token; its text is in this answer and nowhere else."""
        who.require(Right.ADMINISTER)
        with plane.transaction() as session:
            shown, text = tokens.create(session, body.name, body.role, body.organization, body.days)
        return {**shown, "token": text}

    @app.delete("/v1/tokens/{token_id}", tags=["tokens"], status_code=204)
    def revoke_token(token_id: str, who: Who) -> None:
        """End a token at once."""
        who.require(Right.ADMINISTER)
        with plane.transaction() as session:
            tokens.revoke(session, token_id)

    return app


def _problem(error: KeystoreError) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None  # noqa: PLR2004
    return JSONResponse(
        error.to_problem(), status_code=error.status, media_type="application/problem+json", headers=headers
    )


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(KeystoreError)
    def expected(_: Request, error: KeystoreError) -> JSONResponse:
        return _problem(error)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        # Only where and why: what was sent may be a secret.
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:2]) or "body"
        return _problem(
            InvalidInput(f"{where}: {first['msg']}", hint="see /v1/openapi.json for what is expected", prop=where)
        )

    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:  # noqa: PLR2004
            return _problem(NotFound("there is nothing under this path", hint="see /v1/openapi.json"))
        return JSONResponse(
            {"type": "http", "title": str(error.detail), "status": error.status_code},
            status_code=error.status_code,
            media_type="application/problem+json",
            headers=dict(error.headers or {}),
        )

    @app.exception_handler(SQLAlchemyError)
    def database(_: Request, error: SQLAlchemyError) -> JSONResponse:
        _log.error("database error", error=type(error).__name__)
        return _problem(ServiceUnavailable("the service's database does not answer", hint="try again in a moment"))

    @app.exception_handler(Exception)
    def unexpected(_: Request, error: Exception) -> JSONResponse:
        _log.error("unexpected error", error=type(error).__name__)
        problem = KeystoreError("internal error", hint="see the service's log")
        return _problem(problem)


class _BodyLimit:
    """Refuses request bodies over `MAX_BODY_BYTES`, announced or not (ASGI middleware)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = not announced.isdigit() or int(announced) > MAX_BODY_BYTES
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise _too_large()
            return message

        if too_large:
            await _problem(_too_large())(scope, receive, send)
        else:
            await self._app(scope, limited, send)


def _too_large() -> InvalidInput:
    return InvalidInput(f"the request is larger than {MAX_BODY_BYTES:,} bytes", hint="send less at a time")
