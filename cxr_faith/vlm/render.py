"""Render a chat template in a process of its own, with limits: a template is a program that comes with the model.

Reads {template, conversations, variables} as JSON on stdin, and writes {texts} or {error} as JSON on stdout. Run as a
script by `cxr_faith.vlm.chat_template`; the process ends by SIGXCPU if it takes too long.

A template writes the same in every process and on every day: it has no `random` and no `lipsum`, its `strftime_now`
tells a fixed date, and it may not write where something lies in memory.
"""

import json
import re
import resource
import sys
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.filters import FILTERS

SECONDS = 5
MEBIBYTES = 512
"""Memory that a template may use, beside the interpreter's own."""
CHARACTERS = 1_000_000
"""Longest text that a template may write around a short question."""
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]+", re.IGNORECASE)


class FixedDate(datetime):
    """The same date on every day."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "FixedDate":
        """That date at midnight, in the time zone that is asked for."""
        return cls(2025, 1, 1, tzinfo=tz)


def set_limits() -> None:
    """Limit this process from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere the time limit must do
        size = int(statm.read_text().split()[0]) * resource.getpagesize() + (MEBIBYTES << 20)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main() -> None:
    """Render what stdin asks for."""
    from transformers.utils import chat_template_utils

    request = json.load(sys.stdin)
    vars(chat_template_utils)["datetime"] = FixedDate
    del FILTERS["random"], DEFAULT_NAMESPACE["lipsum"]
    set_limits()
    answer: dict[str, object]
    try:
        rendered: Any = chat_template_utils.render_jinja_template(
            conversations=request["conversations"],
            chat_template=request["template"],
            add_generation_prompt=True,
            **request["variables"],
        )
        texts = rendered[0]
        answer = {"texts": texts}
        if max(map(len, texts)) > CHARACTERS:
            answer = {"error": f"it writes more than {CHARACTERS:,} characters"}
        elif any(map(_ADDRESS.search, texts)):
            answer = {"error": "it writes an address in memory, as of a method that it does not call"}
    except MemoryError:
        answer = {"error": f"it needs more than {MEBIBYTES} MiB of memory"}
    except RecursionError:
        answer = {"error": "it calls itself without end"}
    except Exception as error:  # a template can raise whatever Python can
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
