"""Errors as problem documents (RFC 9457), and the limit on request bodies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulumi_keystore.control_plane.api.pacing import charge
from pulumi_keystore.errors import PROBLEM_TYPES, InvalidInput, KeystoreError, NotFound, ServiceUnavailable, TooLarge

MAX_BODY_BYTES: Final = 4 << 20
"""Enrolments of 2,000 users whose ids are as long as they may be, each character of them escaped, are 3.2 MB."""
_MOST_OF_ANYBODY: Final = 64 << 10
"""The same where it is not known who sends it."""
_A_BYTE_S: Final = 10e-9
"""What it takes of the processor to read a byte of a request."""
_SENDING_S: Final = 60
"""How long a client may take to send a request."""
_PROBLEM: Final = "application/problem+json"
_log = structlog.get_logger(__name__)


class Problem(BaseModel):
    """Why a request was not carried out (RFC 9457)."""

    model_config = ConfigDict(frozen=True)
    type: str = Field(
        description=f"{PROBLEM_TYPES}NAME, docs/errors.md has every name; about:blank for a plain HTTP error"
    )
    title: str = Field(description="the name in words, the same each time")
    status: int
    detail: str | None = Field(default=None, description="what happened this time, in one line")
    hint: str | None = Field(default=None, description="what to do next, in one line")
    property: str | None = Field(default=None, description="the input that is to blame")
    rule: str | None = Field(default=None, description="the id of the rule that was broken, such as KS004")


def problem(error: KeystoreError) -> JSONResponse:
    """Return an error as a problem document."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None  # noqa: PLR2004
    return JSONResponse(error.to_problem(), status_code=error.status, media_type=_PROBLEM, headers=headers)


def of_database(error: SQLAlchemyError) -> KeystoreError:
    """Return what people are told where the database fails; what it said may hold what is theirs, and is not shown."""
    if isinstance(error, DataError):
        # It works: what was sent is no text (a NUL, say), or no number, that there can be.
        return InvalidInput(
            "the request contains a value that cannot be stored",
            hint="leave out characters that cannot be printed, and numbers that are too large",
        )
    _log.error("database error", error=type(error).__name__)
    return ServiceUnavailable("the service's database does not answer", hint="try again in a moment")


def handle_errors(app: FastAPI, nothing: Callable[[Request], Response]) -> None:
    """Answer every error with a problem document; what is under no path with what `nothing` returns."""

    @app.exception_handler(KeystoreError)
    def expected(_: Request, error: KeystoreError) -> JSONResponse:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        # Only where and why: what was sent may be a secret.
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:2]) or "body"
        return problem(
            InvalidInput(f"{where}: {first['msg']}", hint="see /v1/openapi.json for what is expected", prop=where)
        )

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == NotFound.status:
            return nothing(request)
        if isinstance(error, BodyTooLarge):
            return problem(error.refusal)
        title = HTTPStatus(error.status_code).phrase
        document = {"type": "about:blank", "title": title, "status": error.status_code}
        if error.detail != title:
            document["detail"] = error.detail
        return JSONResponse(
            document, status_code=error.status_code, media_type=_PROBLEM, headers=dict(error.headers or {})
        )

    @app.exception_handler(SQLAlchemyError)
    def database(_: Request, error: SQLAlchemyError) -> JSONResponse:
        return problem(of_database(error))

    @app.exception_handler(Exception)
    def unexpected(_: Request, error: Exception) -> JSONResponse:
        _log.error("unexpected error", error=type(error).__name__)
        return problem(KeystoreError("internal error", hint="see the service's log"))


def describe(app: FastAPI) -> None:
    """Let the OpenAPI description say that every error is a problem document."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = described()
            schemas = document["components"]["schemas"]
            schemas["Problem"] = Problem.model_json_schema()
            for operation in (one for path in document["paths"].values() for one in path.values()):
                # FastAPI's own description of what it refuses, which is not how it is answered here.
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = {
                    "description": "a problem document",
                    "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it


class BodyLimit:
    """Refuses request bodies that are too large, announced or not, and those that do not come (ASGI middleware).

    Args:
        app: What takes the others.
        refuse: Makes the answer to a request.

    """

    def __init__(self, app: ASGIApp, refuse: Callable[[Request, KeystoreError], Response]) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        most = MAX_BODY_BYTES if hasattr(request.state, "actor") else _MOST_OF_ANYBODY
        refusal = announced_as_too_large(request, most)
        received, complete, until = 0, False, time.monotonic() + _SENDING_S

        async def limited() -> Message:
            nonlocal received, complete
            # What comes after the body is only that the client has gone.
            patience_s = None if complete else max(until - time.monotonic(), 0)
            try:
                message = await asyncio.wait_for(receive(), patience_s)
            except TimeoutError:
                raise HTTPException(408, f"the request was not sent within {_SENDING_S} seconds") from None
            complete = not message.get("more_body", False)
            piece = message.get("body", b"")
            received += len(piece)
            charge(len(piece) * _A_BYTE_S)
            if received > most:
                raise BodyTooLarge(_too_large(most))
            return message

        if refusal is not None:
            await self._refuse(request, refusal)(scope, receive, send)
        else:
            await self._app(scope, limited, send)


class BodyTooLarge(HTTPException):
    """A body that turns out to be too large; FastAPI makes 400 of whatever else is raised while it reads one."""

    def __init__(self, refusal: TooLarge) -> None:
        super().__init__(refusal.status, refusal.summary)
        self.refusal = refusal


def announced_as_too_large(request: Request, most: int = MAX_BODY_BYTES) -> TooLarge | None:
    """Return the error of a request whose head alone says that its body is too large; None of others."""
    announced = request.headers.get("content-length", "0")
    # Longer ones are not numbers to be read (CPython limits their digits).
    readable = announced.isascii() and announced.isdigit() and len(announced) <= 20  # noqa: PLR2004
    return None if readable and int(announced) <= most else _too_large(most)


def _too_large(most: int) -> TooLarge:
    """Return the error of a request that is."""
    return TooLarge(f"the request is larger than {most:,} bytes", hint="send less at a time")
