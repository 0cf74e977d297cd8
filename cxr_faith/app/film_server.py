"""Serves the page of one film: on this machine alone unless told, without a request elsewhere, and without a file left.

gradio counts users, asks for its newest version, and keeps every upload. It reads how it must behave from the
environment when it is imported, so the environment is set first.
"""

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cxr_faith.app.film_page import FilmPage

HOST = "127.0.0.1"
LARGEST_FILM = "300mb"

_BESIDE = {"/manifest.json": ("application/json", b'{"name": "cxr-faith"}'), "/favicon.ico": ("image/x-icon", b"")}
"""What browsers ask for without the token → media type and content."""
_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""gradio's page has inline scripts and makes functions of text; what matters here is that it reaches no other host."""
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for all temporary files of this process, gradio's too, which is gone afterwards, also after SIGTERM."""
    earlier, handler = tempfile.tempdir, signal.signal(signal.SIGTERM, _leave)
    try:
        with tempfile.TemporaryDirectory(prefix="cxr-faith-app-", ignore_cleanup_errors=True) as name:
            os.environ.update(_SETTINGS | {"GRADIO_TEMP_DIR": name})
            tempfile.tempdir = name
            yield Path(name)
    finally:
        tempfile.tempdir = earlier
        signal.signal(signal.SIGTERM, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on.

    Raises:
        OSError: the port is taken, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


class FilmServer:
    """Serves a page behind an address that nobody can guess.

    Args:
        page: what is shown.
        listener: from `listen`.
        host: as the user named it.

    Attributes:
        address: of the page, with the token.
    """

    def __init__(self, page: "FilmPage", listener: socket.socket, host: str) -> None:
        import uvicorn
        from fastapi import FastAPI

        from cxr_faith.app.film_downloads import PLACE
        from cxr_faith.app.film_page import page_files, theme

        token, port = secrets.token_urlsafe(18), listener.getsockname()[1]
        app = FastAPI(openapi_url=None)
        app.add_api_route(f"/{token}/{PLACE}/{{key}}", page.downloads.send, response_model=None)
        gradio_app = _mounted(app, page, f"/{token}", {"theme": theme(), **page_files()})
        names = {f"{name}:{port}" for name in (HOST, "localhost")} if host == HOST else None
        config = uvicorn.Config(
            _Guard(gradio_app, token, names), log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server, self._listener = uvicorn.Server(config), listener
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}/{token}/"

    def serve_forever(self) -> None:
        """Serve until this thread gets an exception, such as that of Ctrl-C."""
        ended = threading.Event()  # not `join`: where Ctrl-C breaks into it, the thread counts as ended from then on

        def serve() -> None:
            try:
                self._server.run([self._listener])
            finally:
                ended.set()

        threading.Thread(target=serve, daemon=True).start()
        try:
            ended.wait()
        finally:
            # What is still open is cut off, which is no error of the server's; it would print a traceback.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            self._server.should_exit = self._server.force_exit = True
            ended.wait(5)


class _Guard:
    """Refuses requests without the token or under another host's name, and adds headers to every answer."""

    def __init__(self, app: "ASGIApp", token: str, names: set[str] | None) -> None:
        self._app, self._prefix, self._names = app, f"/{token}/", names

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        async def with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                own = {name.lower().encode(): text.encode() for name, text in _HEADERS.items()}
                message["headers"] = [pair for pair in message["headers"] if pair[0].lower() not in own] + [
                    *own.items()
                ]
            await send(message)

        if scope["type"] == "http" and scope["path"] in _BESIDE:
            await _say(with_headers, 200, *_BESIDE[scope["path"]])
        elif scope["type"] == "http" and not self._is_known(scope):
            await _say(with_headers, 403, "text/plain", b"Open the address that the command printed.")
        elif scope["type"] in ("http", "lifespan"):
            await self._app(scope, receive, with_headers)

    def _is_known(self, scope: "Scope") -> bool:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        has_token = secrets.compare_digest(scope["path"][: len(self._prefix)].encode(), self._prefix.encode())
        return has_token and (self._names is None or host in self._names)


async def _say(send: "Send", status: int, kind: str, content: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _mounted(app: "ASGIApp", page: "FilmPage", path: str, look: dict[str, object]) -> "ASGIApp":
    import gradio as gr

    mounted: ASGIApp = gr.mount_gradio_app(
        app,
        page.blocks(),
        path,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=LARGEST_FILM,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        **look,
    )
    return mounted


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not stop the removal of the folder
    raise SystemExit(128 + number)
