"""UNIX sockets as a transport of the library requests."""

import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError


class SocketConnection(HTTPConnection):
    """A connection to a UNIX socket."""

    def __init__(self, *arguments: Any, path: str, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.path = path

    def connect(self) -> None:
        """Connects. Raises NewConnectionError, as urllib3 does if nothing listens at a port."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self.path)
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error


class SocketPool(HTTPConnectionPool):
    """Connections to one UNIX socket."""

    ConnectionCls = SocketConnection


class SocketAdapter(HTTPAdapter):
    """Sends the requests of a session to a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.pool = SocketPool("localhost", path=path)

    def get_connection_with_tls_context(self, *arguments: Any, **more: Any) -> SocketPool:
        """The pool of connections for a request."""
        return self.pool

    def close(self) -> None:
        """Closes the connections."""
        self.pool.close()
        super().close()
