"""What a model's chat template writes before and after a question.

The template is rendered once, for a few probes, in a process with limits (`cxr_faith.vlm.render`). Every question is
then put between the two texts, so that nothing in a question can make the template run on.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cxr_faith.vlm import render
from cxr_faith.vlm.errors import ModelError, TemplateError

_PROBE = "Is <there> & a {{ Nodule }}?\n  'Größe' \"5\" [x] | y"
_PADDED = f" \n\t{_PROBE} \n"
_LONG = "where is it? " * 500 + "end"
_TRIMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)
_NO_SYSTEM = "the chat template leaves out the system text (vlm.system): put it into vlm.prompt_template"
_STARTUP_SECONDS = 300
"""Loading libraries from a slow disk may take long; the template itself has `render.SECONDS` of processor time."""


@dataclass(frozen=True)
class ChatTemplate:
    """The texts around a question.

    Attributes:
        before: everything that comes before the question, with the mark of the image.
        after: everything that follows, up to the start of the answer.
        trim: what the template does to white space at the question's ends.
    """

    before: str
    after: str
    trim: Callable[[str], str]

    @classmethod
    def of(cls, processor: Any, system: str = "", pictures: int = 1) -> "ChatTemplate":
        """Find out what a processor's template writes.

        Args:
            processor: the model's processor.
            system: text of the system role; empty: no such role.
            pictures: number of pictures before the question.

        Raises:
            TemplateError: the template fails, does not write the question once and as it is, or leaves the system text
                out.
            ModelError: there is no template, it does not end, or the process that renders it failed.
        """
        return _probe(*template_of(processor), system, pictures)

    def fill(self, text: str) -> str:
        """The prompt of a question."""
        return f"{self.before}{self.trim(text)}{self.after}"


def template_of(processor: Any) -> tuple[str, str]:
    """A processor's chat template, and what its texts may name, as JSON.

    Raises:
        ModelError: there is no template, or it is too long.
    """
    template = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise ModelError("there is no chat template (chat_template.jinja)")
    if len(template) > render.CHARACTERS:
        raise ModelError(f"the chat template has {len(template):,} characters, more than {render.CHARACTERS:,}")
    return template, json.dumps(processor.tokenizer.special_tokens_map, default=str)


@lru_cache(maxsize=16)
def _probe(template: str, variables: str, system: str, pictures: int) -> ChatTemplate:
    talks = [[_PROBE], [_PADDED], [_LONG], [""]]
    plain, padded, long, empty = rendered(template, variables, talks, system, pictures)
    if plain.count(_PROBE) != 1:
        raise TemplateError(f"the chat template writes the question {plain.count(_PROBE)} times, not once as it is")
    before, _, after = plain.partition(_PROBE)
    if system.strip() not in before + after:
        raise TemplateError(_NO_SYSTEM)
    for trim in _TRIMS:
        chat = ChatTemplate(before, after, trim)
        if [chat.fill(text) for text in (_PADDED, _LONG, "")] == [padded, long, empty]:
            return chat
    raise TemplateError("the chat template changes the question, or writes other text around some questions")


def rendered(
    template: str, variables: str, conversations: Sequence[Sequence[str]], system: str, pictures: int
) -> list[str]:
    """The prompts of some conversations, rendered in another process.

    Args:
        template: the chat template.
        variables: what its texts may name, as JSON.
        conversations: texts of the user and of the model by turns; each ends with the user's question.
        system: text of the system role; empty: no such role.
        pictures: number of pictures before the first question.

    Raises:
        TemplateError: the template fails.
        ModelError: it exceeds a limit, or the other process failed.
    """
    messages = [_messages(texts, system, pictures) for texts in conversations]
    request = json.dumps({"template": template, "conversations": messages, "variables": json.loads(variables)})
    words = [sys.executable, "-P", str(Path(render.__file__))]
    # A terminal's encoding must not change what the two processes say to each other.
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            words, input=request.encode(), capture_output=True, timeout=_STARTUP_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"the chat template was not rendered within {_STARTUP_SECONDS} seconds") from error
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ModelError(f"the chat template does not end: stopped after {render.SECONDS} seconds")
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise ModelError(f"the chat template cannot be rendered (status {done.returncode}): {reason}") from error
    if "error" in answer:
        raise TemplateError(f"the chat template fails: {' '.join(answer['error'].split())[:300]}")
    texts: list[str] = answer["texts"]
    return texts


def _messages(texts: Sequence[str], system: str, pictures: int) -> list[dict[str, Any]]:
    """The messages of a conversation, as chat templates read them."""
    opening = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    turns: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[place % 2], "content": [{"type": "text", "text": text}]}
        for place, text in enumerate(texts)
    ]
    turns[0]["content"] = [{"type": "image", "image": "picture"}] * pictures + turns[0]["content"]
    return [*opening, *turns]
