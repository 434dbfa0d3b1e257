"""Which existing Dask scheduler a run may use, and how it is reached: over TLS, or on this machine.

Whoever reaches a Dask scheduler may run any code on its workers. One that is neither on loopback nor behind TLS is
refused, unless the settings allow exactly this address. What is run there belongs in `tasks.cluster`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.addresses import is_loopback
from schemas.errors import ConfigError, ExecutionError
from schemas.settings import Settings

if TYPE_CHECKING:
    from distributed import Security

_GREETING_SECONDS = 10


def security_of(settings: Settings) -> Security | None:
    """Return the TLS identity of this client for the scheduler of the settings; None where it has no TLS.

    Raises
    ------
    ConfigError
        If the scheduler is neither on this machine nor behind TLS, or a PEM file is missing or not one.
    """
    address = settings.dask_scheduler
    if address is None:
        return None
    if not address.startswith("tls://"):
        _refuse_plain(address, settings.allow_plain_scheduler)
        return None
    from distributed import Security

    files = {
        name: _pem(f"FACTORCUBE_{name.upper()}", getattr(settings, name))
        for name in ("dask_tls_ca", "dask_tls_cert", "dask_tls_key")
    }
    security = Security(
        require_encryption=True,
        tls_ca_file=str(files["dask_tls_ca"]),
        tls_client_cert=str(files["dask_tls_cert"]),
        tls_client_key=str(files["dask_tls_key"]),
    )
    _load(files["dask_tls_ca"], files["dask_tls_cert"], files["dask_tls_key"])
    return security


def greet(settings: Settings, security: Security | None) -> None:
    """Shake hands with a scheduler behind TLS, so that a refusal says why at once; silent if nobody answers yet.

    Raises
    ------
    ExecutionError
        If one side does not trust the other's certificate, or the scheduler does not speak TLS.
    """
    if security is None or settings.dask_scheduler is None:
        return
    from distributed.comm.addressing import parse_address, parse_host_port

    host, port = parse_host_port(parse_address(settings.dask_scheduler)[1])
    context = security.get_connection_args("client")["ssl_context"]
    with contextlib.suppress(OSError):  # nobody answers: distributed tries again for a while
        plain = socket.create_connection((host, port), timeout=_GREETING_SECONDS)
        try:
            with context.wrap_socket(plain, server_hostname=host) as connection:
                connection.recv(1)  # with TLS 1.3 the server judges the client's certificate after the handshake
        except ssl.SSLError as error:
            raise ExecutionError(
                f"the Dask scheduler at {settings.dask_scheduler} and this client do not trust each other: "
                f"{_reason(error)}; both need certificates of one authority (FACTORCUBE_DASK_TLS_CA, _CERT, _KEY)"
            ) from None
        finally:
            plain.close()


def _refuse_plain(address: str, allowed: str | None) -> None:
    from distributed.comm.addressing import get_address_host

    try:
        near = is_loopback(get_address_host(address))
    except ValueError:
        raise ConfigError(f"FACTORCUBE_DASK_SCHEDULER: {address} is not an address; write tls://host:port") from None
    if not near and address != allowed:
        raise ConfigError(
            f"FACTORCUBE_DASK_SCHEDULER: {address} is neither on this machine nor behind TLS, and whoever reaches it "
            "runs code there; use tls://host:port, or set FACTORCUBE_ALLOW_PLAIN_SCHEDULER to the same address"
        )


def _pem(setting: str, path: Path | None) -> Path:
    if path is None:
        raise ConfigError(f"{setting} is not set; a scheduler behind tls:// needs a PEM file there")
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}") from None
    if b"-----BEGIN" not in content:
        raise ConfigError(f"{setting}: {path} is not a PEM file")
    return path.expanduser()


def _load(ca: Path, cert: Path, key: Path) -> None:
    """Load the files once here, where the one at fault can be named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ConfigError(f"FACTORCUBE_DASK_TLS_CA: {ca} holds no certificate: {_reason(error)}") from None
    try:
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise ConfigError(
            f"FACTORCUBE_DASK_TLS_CERT, FACTORCUBE_DASK_TLS_KEY: {cert} and {key} are not a certificate and its "
            f"unencrypted key: {_reason(error)}"
        ) from None


def _reason(error: ssl.SSLError) -> str:
    return str(error.reason or error).replace("_", " ").lower()
