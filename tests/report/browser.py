"""Headless Chromium, driven through its DevTools protocol: opens a page, runs script, reports errors."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab, and what it reported: `errors` (console, exceptions, log) and `requests` (addresses)."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self._number, self._loaded = 0, False
        self.errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._event(message)

    def _event(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.errors.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(parameters["args"])[:500])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def visit(self, address: str) -> None:
        """Load an address."""
        self._loaded = False
        self.send("Page.navigate", url=address)
        while not self._loaded:
            self._event(json.loads(self._socket.recv()))

    def open(self, page: Path) -> None:
        """Load a report page and wait until its script is done."""
        self.visit(page.resolve().as_uri())
        self.until("document.documentElement.dataset.ready === 'yes'")

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def sheets(self, width: float, height: float) -> int:
        """How many sheets of a size in inches the page prints on."""
        printed = self.send("Page.printToPDF", paperWidth=width, paperHeight=height, preferCSSPageSize=True)
        return len(re.findall(rb"/Type\s*/Page\b", b64decode(printed["data"])))

    def screenshot(self, path: Path) -> None:
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(b64decode(shot["data"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A fresh Chromium with its profile in a folder; the test is skipped without Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    pytest.importorskip("websocket", reason="development dependency websocket-client")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    process = subprocess.Popen(
        [CHROMIUM, *options, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder)},
    )
    try:
        port_file, end = folder / "DevToolsActivePort", time.monotonic() + 60
        while not port_file.exists() or not port_file.read_text().strip():
            assert process.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        yield Browser(tabs[0]["webSocketDebuggerUrl"])
    finally:
        process.terminate()
        process.wait(timeout=30)


FIRST_COLUMN = "[...document.querySelectorAll('#board tbody tr td:first-child')].map((cell) => cell.textContent)"
"""Names of the leaderboard's rows, as they are sorted."""


def choose(browser: Browser, select: str, value: str, event: str = "change") -> None:
    """Choose an option of a select, or type into a field, by its id."""
    change = f"(s => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('{event}')); }})"
    browser.run(f"{change}(document.getElementById({json.dumps(select)}))")


CONTRAST = """
(() => {
  const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  // A mixed color is written as "color(srgb 0.1 0.2 0.3)", in shares of 1.
  const numbers = (color) => color.match(/[\\d.]+/g).map((n, i) => n * (color.startsWith('color(') && i < 3 ? 255 : 1));
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(at).backgroundColor);
      if (alpha > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll('body *')]
    .filter((one) => one.closest('svg') ? one.matches('text, tspan') : one.offsetParent !== null)
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
    .filter((one) => !one.matches('script, style'));
  const faint = texts.filter((one) => {
    const style = getComputedStyle(one), color = one.closest('svg') ? style.fill : style.color;
    const [high, low] = [light(numbers(color)), light(behind(one))].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05) < 4.5;
  });
  return [texts.length, faint.map((one) => one.outerHTML.slice(0, 200))];
})()
"""
"""How many texts are visible, and those with less contrast than 4.5 to 1."""
