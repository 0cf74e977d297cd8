"""A read-only server on this machine alone: the pages of one run behind an address that nobody can guess."""

import hmac
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from cxr_faith.app.pages import Pages, UnknownPageError

HOST = "127.0.0.1"

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; form-action 'self'; base-uri 'none'"
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The report's own policy: its script makes no request."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MOST_FIELDS = 20


class Viewer(ThreadingHTTPServer):
    """Serves the pages of a run on this machine.

    Args:
        pages: what is shown.
        port: 0: any that is free.

    Attributes:
        address: of the list, with the token.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, pages: Pages, port: int = 0) -> None:
        super().__init__((HOST, port), _Handler)
        self._pages, self._token = pages, secrets.token_urlsafe(18)
        self.address = f"http://{HOST}:{self.server_port}/{self._token}/"

    def answer(self, target: str, host: str) -> tuple[HTTPStatus, str, bytes]:
        """Status, media type and content for the target of a request.

        Args:
            target: path and query.
            host: the header `Host`: another name than this machine's is a page of the web that was led here.
        """
        parts, html = urlsplit(target), "text/html; charset=utf-8"
        token, _, name = parts.path.removeprefix("/").partition("/")
        is_known = hmac.compare_digest(token.encode(), self._token.encode())
        if host not in (f"{HOST}:{self.server_port}", f"localhost:{self.server_port}") or not is_known:
            return HTTPStatus.FORBIDDEN, html, b"Open the address that the command printed."
        try:
            make = self._pages.routes.get(unquote(name))
            if make is None:
                raise UnknownPageError(f"There is no page {name!r}.")
            media, content = make(dict(parse_qsl(parts.query, max_num_fields=_MOST_FIELDS)))
            return HTTPStatus.OK, media, content
        except UnknownPageError as error:
            return HTTPStatus.NOT_FOUND, html, self._pages.message("Not found", str(error))
        except ValueError as error:
            return HTTPStatus.BAD_REQUEST, html, self._pages.message("Cannot be shown", str(error))
        except OSError as error:
            return HTTPStatus.INTERNAL_SERVER_ERROR, html, self._pages.message("Cannot be read", str(error))


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version, timeout = "cxr-faith", "", 30

    def do_GET(self) -> None:  # noqa: N802 - the name that the library calls
        """Answer; other methods than GET are refused by the library, as there is no code for them."""
        assert isinstance(self.server, Viewer)
        status, media, content = self.server.answer(self.path, self.headers.get("Host", ""))
        is_report = urlsplit(self.path).path.endswith("/report")
        self.send_response(status)
        policy = {"Content-Security-Policy": _REPORT_POLICY if is_report else _POLICY}
        for name, value in {"Content-Type": media, "Content-Length": str(len(content)), **policy, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: addresses hold the token and ids of patients."""
