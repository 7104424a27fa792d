"""Settings of the service, from the environment (`KEYSTORE_…`) or the options of `keystore serve`."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pulumi_keystore.control_plane.runtime import mail_settings

DEFAULT_PORT = 8700


def default_data_folder() -> Path:
    """Return where the service keeps its data: /var/lib for root, the user's data folder otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/pulumi-keystore")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pulumi-keystore"


class Settings(BaseSettings):
    """Every setting of the service. Each can be given as `KEYSTORE_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="KEYSTORE_", env_ignore_empty=True, extra="ignore")

    data: Path = Field(default_factory=default_data_folder, description="folder for the database and the master key")
    database_url: str | None = Field(
        default=None,
        description="PostgreSQL URL, of one or several hosts; without one an embedded one runs in the data folder",
    )
    master_key_file: Path | None = Field(
        default=None, description="file with the base64 master key; made in the data folder if not given"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on; defaults to loopback")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=DEFAULT_PORT, description="port to listen on")
    tls_certificate: Path | None = Field(default=None, description="PEM certificate chain to serve HTTPS with")
    tls_key: Path | None = Field(default=None, description="PEM private key of the certificate")
    host_map: str = Field(
        default="", description="JSON object from public HOST:PORT to the dialled one; for tests and demos only"
    )
    smtp_url: str = Field(default="", description="smtp://[user:password@]HOST:PORT or smtps://; empty for no mail")
    smtp_ca: Path | None = Field(
        default=None, description="PEM file of the CA that the mail server is verified with; the public ones if none"
    )
    mail_from: str = Field(default="keystore@localhost", description="sender address of emails")
    mail_sender_name: str = Field(default="The Keystore Security Center", description="sender name of emails")
    webhook_ca: Path | None = Field(
        default=None, description="PEM file of the CA that webhooks' servers are verified with; the public ones if none"
    )
    health_checks: bool = Field(
        default=True, description="whether this process checks the health of keystores, together with others that do"
    )
    health_check_s: Annotated[float, Field(gt=0)] = Field(
        default=10, description="deadline in seconds of each health check of a self-administered keystore"
    )
    health_check_interval_s: Annotated[float, Field(gt=0)] = Field(
        default=60, description="seconds between two health checks of a keystore; shorter in tests and demos only"
    )
    requests_per_organization: Annotated[int, Field(ge=1, le=100)] = Field(
        default=16,
        description="requests of one organization that are worked on at a time, of which an eighth is kept for people "
        "and their tools; four times as many wait, and more are answered with 429",
    )
    processor_per_organization: Annotated[float, Field(gt=0, le=64)] = Field(
        default=0.25,
        description="how much of a processor the requests of one organization take on average while other "
        "organizations are active, too",
    )
    keystores_per_organization: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=20, description="keystores that one organization may have"
    )
    keys_per_organization: Annotated[int, Field(ge=1)] = Field(
        default=1_000_000, description="archive keys that one organization may have in escrow"
    )
    changes_per_day: Annotated[int, Field(ge=1)] = Field(
        default=5000,
        description="changes, as its history counts them, that tokens of an organization may make in 24 hours",
    )
    migrations_per_hour: Annotated[int, Field(ge=1)] = Field(
        default=20, description="migrations of an organization in an hour, after which its own tokens begin no more"
    )
    in_flight: Annotated[int, Field(ge=1, le=512)] = Field(
        default=32, description="most requests in flight to the keystores of one migration, in one process"
    )
    shard_size: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=2000, description="keys in one shard: what a worker takes at a time"
    )
    slots: Annotated[int, Field(ge=0, le=64)] = Field(
        default=4,
        description="organizations whose keys this process moves at a time; 0 leaves it to `keystore worker`",
    )
    request_s: Annotated[float, Field(gt=0)] = Field(
        default=10, description="deadline in seconds of each request to a keystore"
    )
    lease_s: Annotated[float, Field(gt=0)] = Field(
        default=15, description="seconds without a sign of life after which a worker's shard is given to another"
    )
    hold_s: Annotated[float, Field(gt=0)] = Field(
        default=1.5, description="longest time in seconds for which an online migration holds enrolments at its end"
    )
    retry_s: Annotated[float, Field(ge=0)] = Field(
        default=30, description="seconds for which a migration retries an unreachable keystore"
    )
    stall_s: Annotated[float, Field(gt=0)] = Field(
        default=300, description="seconds without a moved key after which a migration is canceled"
    )
    cleanup_retry_s: Annotated[float, Field(gt=0)] = Field(
        default=30, description="seconds between attempts of a clean-up that is left over"
    )
    retain_s: Annotated[float, Field(ge=0)] = Field(
        default=0, description="seconds for which the keys stay at the source after a migration, as a way back"
    )
    audit_s: Annotated[float, Field(ge=0)] = Field(
        default=86_400, description="seconds between the looks through all keys of an organization; 0 for none"
    )

    @field_validator("smtp_ca", "webhook_ca")
    @classmethod
    def _holds_certificates(cls, path: Path | None) -> Path | None:
        """Find out at the start what would otherwise be found out at the first alert."""
        if path is not None:
            try:
                ssl.create_default_context(cafile=str(path))
            except (OSError, ssl.SSLError):
                raise ValueError(f"{path} cannot be read, or holds no certificates in PEM") from None
        return path

    @model_validator(mode="after")
    def _speaks_tls(self) -> Settings:
        """Find out at once that certificate and key cannot be used, not when everything else has begun."""
        if self.tls_certificate is not None and self.tls_key is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_certificate, self.tls_key, lambda: "")
            except (OSError, ssl.SSLError):
                raise ValueError(
                    "tls_certificate and tls_key cannot be read, or do not belong together (PEM, without a password)"
                ) from None
        return self

    @field_validator("smtp_url")
    @classmethod
    def _names_a_mail_server(cls, url: str) -> str:
        return mail_settings.check_url(url)

    @field_validator("mail_from")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        return mail_settings.check_sender(address)

    @field_validator("mail_sender_name")
    @classmethod
    def _is_one_line(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("expected one line of text")
        return name
