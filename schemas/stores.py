"""What may be said about the store of cubes and versions, or of intermediate results: URL, server, credentials.

Here belongs judging what an operator wrote; opening the store belongs to `storage.stores`. Messages never repeat a URL:
it may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from schemas.addresses import check_address
from schemas.base import Frozen, nearest
from schemas.errors import ConfigError

SCHEMES = ("file", "s3")
"""Schemes that factorcube knows how to open; settings may allow fewer."""

_SETTING, _WORK_SETTING = "FACTORCUBE_STORE", "FACTORCUBE_WORK"
_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,127}")


class Folder(Frozen):
    """A folder of a local disk."""

    path: Path


class S3Place(Frozen):
    """A bucket and a prefix in it, which may be empty."""

    bucket: str
    prefix: str


def parse_store(url: str, allowed: tuple[str, ...] = SCHEMES) -> Folder | S3Place:
    """Read the URL of a store.

    Raises
    ------
    ConfigError
        If its scheme is unknown or not allowed, or it could lead elsewhere than it seems to.

    Examples
    --------
    >>> parse_store("s3://risk/factorcube/prod")
    S3Place(bucket='risk', prefix='factorcube/prod')
    >>> parse_store("https://risk.example.com/factorcube")
    Traceback (most recent call last):
    schemas.errors.ConfigError: FACTORCUBE_STORE: this scheme is not allowed for a store; use file:// or s3://
    """
    scheme, rest = _split(url, [name for name in SCHEMES if name in allowed], _SETTING)
    if scheme == "s3":
        return _bucket(rest, _SETTING)
    host, slash, path = rest.partition("/")
    if host or not path or ".." in path.split("/") or re.search(r"[%?#\\\x00-\x1f]", path):
        raise ConfigError(
            f"{_SETTING}: a file store is an absolute folder without '..', query or escapes: file:///folder"
        )
    return Folder(path=Path(slash + path))


def parse_work(url: str, allowed: tuple[str, ...] = SCHEMES) -> S3Place:
    """Read the URL of the object store of intermediate results; raises as `parse_store` does.

    A folder is none: machines that share one have their root in it.
    """
    _, rest = _split(url, [name for name in ("s3",) if name in allowed], _WORK_SETTING)
    return _bucket(rest, _WORK_SETTING)


def _split(url: str, known: list[str], setting: str) -> tuple[str, str]:
    """Return scheme and rest of a URL whose scheme is one of these."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in known:
        usable = " or ".join(f"{name}://" for name in known)
        raise ConfigError(f"{setting}: this scheme is not allowed for a store; use {usable or 'none at all'}")
    return scheme, rest


def _bucket(rest: str, setting: str) -> S3Place:
    host, _, path = rest.partition("/")
    segments = path.removesuffix("/").split("/") if path else []
    if not _BUCKET.fullmatch(host) or not all(_SEGMENT.fullmatch(one) for one in segments):
        raise ConfigError(
            f"{setting}: an S3 store is a bucket and a prefix of letters, digits, '.', '_', '=' and '-', without "
            "credentials, port or query: s3://bucket/prefix"
        )
    return S3Place(bucket=host, prefix="/".join(segments))


class S3Access(Frozen):
    """Which server an object store is on and who may use it; without keys they are looked up as the AWS tools do."""

    kind: Literal["s3"] = "s3"
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    region: str = "us-east-1"
    endpoint: str | None = Field(default=None, repr=False)

    @classmethod
    def of(cls, variables: Mapping[str, object], origin: str, *, strict: bool) -> Self:
        """Read the usual ``AWS_...`` variables.

        Parameters
        ----------
        variables : Mapping
            The environment, or the value of a block.
        origin : str
            Where they come from, for messages.
        strict : bool
            Refuse what is not known here; an environment may hold anything.

        Raises
        ------
        ConfigError
            If a variable is unknown, half of the credentials is missing, or the endpoint is one that is refused.
        """
        unknown = sorted(set(variables) - set(_VARIABLES))
        if strict and unknown:
            raise ConfigError(f"{origin}: unknown key {unknown[0]} ({nearest(unknown[0], list(_VARIABLES))})")
        found: dict[str, str] = {}
        for name, field in _VARIABLES.items():
            value = variables.get(name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{origin}: {name} is not text")
            if value:
                found.setdefault(field, value)
        if ("access_key_id" in found) != ("secret_access_key" in found):
            raise ConfigError(f"{origin}: give both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither")
        if "endpoint" in found:
            check_endpoint(found["endpoint"], f"{origin}: AWS_ENDPOINT_URL")
        return cls.model_validate(found)

    @property
    def plain(self) -> bool:
        """Whether the server is spoken to without TLS, which `check_endpoint` allows on this machine alone."""
        return self.endpoint is not None and self.endpoint.lower().startswith("http://")

    @property
    def keys(self) -> dict[str, str]:
        """The credentials in the clear, for the clients that sign with them; empty if there are none."""
        secrets = {name: getattr(self, name) for name in _SECRETS}
        return {name: secret.get_secret_value() for name, secret in secrets.items() if secret is not None}

    def masked(self, text: str) -> str:
        """Return a text in which no credential stands."""
        for secret in self.keys.values():
            text = text.replace(secret, "**********")
        return text


def check_endpoint(url: str, what: str) -> None:
    """Refuse an S3 server that is no web server, carries a password, or that `check_address` refuses."""
    check_address(url, what)
    parts = urlsplit(url)
    if parts.scheme.lower() not in {"http", "https"} or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(f"{what}: is not the address of a server; write https://host without user or query")


_SECRETS = ("access_key_id", "secret_access_key", "session_token")
_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
    "AWS_REGION": "region",
    "AWS_DEFAULT_REGION": "region",
    "AWS_ENDPOINT_URL_S3": "endpoint",
    "AWS_ENDPOINT_URL": "endpoint",
}
