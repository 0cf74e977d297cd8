"""Runs the command line and ends it with status 99 at the first attempt to reach another machine.

    python tests/cli/no_network.py evaluate --config …

Lightning starts further ranks with the same script, so they are watched as well.
"""

import os
import socket
import sys

HERE = {"127.0.0.1", "::1", "localhost", "", None, "0.0.0.0", "::", socket.gethostname(), socket.getfqdn()}


def forbid(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: sees every connection and every look-up of Python code; cannot be taken off again."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in HERE:
            leave(event, address)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0] not in HERE:
        leave(event, arguments[0])


def leave(event: str, where: object) -> None:
    """End this process at once, whatever catches exceptions."""
    os.write(2, f"network: {event} {where}\n".encode())
    os._exit(99)


if __name__ == "__main__":
    sys.addaudithook(forbid)
    if sys.argv[1] == "probe":
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    from cxr_faith.__main__ import main

    sys.exit(main())
