"""Render a chat template in a process of its own, with limits: a template is a program that comes with the model.

Reads {template, conversations, variables} as JSON on stdin, and writes {texts} or {error} as JSON on stdout. Run as a
script by `cxr_faith.vlm.chat_template`; the process ends by SIGXCPU if it takes too long.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

SECONDS = 5
MEBIBYTES = 512
"""Memory that a template may use, beside the interpreter's own."""
CHARACTERS = 1_000_000
"""Longest text that a template may write around a short question."""


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
    from transformers.utils.chat_template_utils import render_jinja_template

    request = json.load(sys.stdin)
    set_limits()
    answer: dict[str, object]
    try:
        rendered: Any = render_jinja_template(
            conversations=request["conversations"],
            chat_template=request["template"],
            add_generation_prompt=True,
            **request["variables"],
        )
        texts = rendered[0]
        answer = {"texts": texts}
        if max(map(len, texts)) > CHARACTERS:
            answer = {"error": f"it writes more than {CHARACTERS:,} characters"}
    except MemoryError:
        answer = {"error": f"it needs more than {MEBIBYTES} MiB of memory"}
    except RecursionError:
        answer = {"error": "it calls itself without end"}
    except Exception as error:  # a template can raise whatever Python can
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
