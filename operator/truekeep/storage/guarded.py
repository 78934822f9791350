"""Connections of boto3 that go to addresses which may be called, and to no other.

Whoever writes a Model chooses the endpoint, and the pod asks it with the keys of a Secret: so an endpoint must not lead
to what only the machine itself has (`addresses.refusal`), neither by its name, nor by a second answer of the resolver:
what was looked up and judged is what is connected to. Redirects are not followed by the connection, and boto3's own
(to the region that a bucket is in) keep the endpoint."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.exceptions import HTTPClientError
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from truekeep.storage.addresses import (
    LOOPBACK_ALLOWED,
    LOOPBACK_ENV,
    AddressRefusedError,
    NoAddressError,
    callable_addresses,
)

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class _Judged:
    """Of a connection: looks the host up once, and goes to one of the addresses that were found and judged."""

    _dns_host: str
    port: int

    def _new_conn(self) -> socket.socket:
        host = self._dns_host
        try:
            addresses = callable_addresses(host, self.port, loopback=os.environ.get(LOOPBACK_ENV) == LOOPBACK_ALLOWED)
        except NoAddressError as error:
            raise NameResolutionError(host, self, socket.gaierror(str(error))) from error  # type: ignore[arg-type]
        try:
            for address in addresses[:-1]:
                try:
                    return self._to(address)
                except (NewConnectionError, ConnectTimeoutError):  # the next may answer; the last one's error is told
                    continue
            return self._to(addresses[-1])
        finally:
            self._dns_host = host  # by which the certificate is judged

    def _to(self, address: str) -> socket.socket:
        self._dns_host = address
        made: socket.socket = super()._new_conn()  # type: ignore[misc]
        return made


class _Connection(_Judged, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _SecureConnection(_Judged, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def guard(client: S3Client) -> S3Client:
    """The client, all of whose connections are judged. boto3 offers no public place for that; a test calls an address
    that must be refused, and so says when the place has moved."""
    session: Any = client._endpoint.http_session  # type: ignore[attr-defined]
    pools = {"http": _Pool, "https": _SecurePool}
    session._pool_classes_by_scheme = pools
    session._manager.pool_classes_by_scheme = pools
    return client


def refused(error: Exception) -> AddressRefusedError | None:
    """Why an error of boto3's came from here; None where it did not."""
    inner = error.kwargs.get("error") if isinstance(error, HTTPClientError) else None
    return inner if isinstance(inner, AddressRefusedError) else None
