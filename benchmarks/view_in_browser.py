"""How long a reader of a large run waits: `python benchmarks/view_in_browser.py [--rows 100000] [--times 5]`.

Serves a run of `benchmarks/summary_scale.py` as `cxr-faith view` does, opens it in Chromium, and prints wall times:
from the address to the first list, and from the click to the list of a filter. Nothing else should be running. Needs
Chromium and websocket-client.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks.summary_scale import write_run  # noqa: E402
from cxr_faith.app.pages import Pages  # noqa: E402
from cxr_faith.app.server import Viewer  # noqa: E402
from tests.report.browser import Browser, chromium  # noqa: E402

CAPTION = "document.querySelector('caption')?.textContent"
FILTER = """(() => {
    document.querySelector('select[name=method]').value = 'chefer';
    document.querySelector('select[name=answered]').value = 'wrong';
    document.querySelector('select[name=order]').value = 'best';
    document.querySelector('form button').click();
})()"""


def waits(browser: Browser, address: str) -> tuple[float, float, str, str]:
    """Seconds until the first list and until the filtered one are drawn, and the captions of both."""
    begin = time.monotonic()
    browser.visit(address)
    browser.until(CAPTION)
    listed, first = time.monotonic() - begin, str(browser.run(CAPTION))
    begin = time.monotonic()
    browser.run(FILTER)
    browser.until(f"{CAPTION} && {CAPTION} !== {first!r}")
    return listed, time.monotonic() - begin, first, str(browser.run(CAPTION))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the run, open it, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5, help="how often; the medians are printed")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, chromium(Path(name)) as browser:
        count = write_run(Path(name) / "run", options.rows)
        begin = time.monotonic()
        with Viewer(Pages(Path(name) / "run")) as server:
            opened = time.monotonic() - begin
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            turns = [waits(browser, server.address) for _ in range(options.times)]
            server.shutdown()
    first, filtered = (sorted(turn[place] for turn in turns)[options.times // 2] for place in (0, 1))
    print(f"{count:,} records: opened in {opened:.2f} s, first list in {first:.2f} s, filter in {filtered:.2f} s")
    print(f"listed: {turns[0][2]}; filtered: {turns[0][3]}")


if __name__ == "__main__":
    main()
