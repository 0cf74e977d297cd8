"""What a model's chat template writes between the turns of a conversation; all pictures come before the first one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cxr_faith.data.sample import Turn
from cxr_faith.vlm.chat_template import ChatTemplate, rendered, template_of
from cxr_faith.vlm.errors import ModelError, PromptError

_TALK = ("Is <there> a {{ Nodule }}?", "Yes, & it is 'round'.", "Where does it lie?")
_PADDED = (" \nIs it\n new? ", "\t No. \n", " Is it large?", "It\n\nis. ", "\n Why? ")
"""Texts of user and model by turns."""


@dataclass(frozen=True)
class Conversation:
    """A chat template with what it writes between turns.

    Attributes:
        chat: the texts around a question.
        answered: what stands between a question and its answer.
        asked: what stands between an answer and the next question.
    """

    chat: ChatTemplate
    answered: str
    asked: str

    @classmethod
    def of(cls, processor: Any, system: str = "", pictures: int = 1) -> "Conversation":
        """Find out what a processor's template writes; arguments as for `ChatTemplate.of`.

        Raises:
            PromptError: the template takes no earlier turns, or changes them.
        """
        probed = _probe(*template_of(processor), system, pictures, ChatTemplate.of(processor, system, pictures))
        if isinstance(probed, str):
            raise PromptError(f"the chat template takes no earlier turns: {probed}")
        return probed

    def fill(self, texts: Sequence[str], after: str) -> str:
        """The prompt of a conversation.

        Args:
            texts: of the user and of the model by turns, up to the question.
            after: what follows the question.
        """
        trimmed = list(map(self.chat.trim, texts))
        between = [(self.answered, self.asked)[place % 2] for place in range(len(texts) - 1)]
        return self.chat.before + "".join(a + b for a, b in zip(trimmed, [*between, after], strict=True))


@lru_cache(maxsize=16)
def _probe(template: str, variables: str, system: str, pictures: int, chat: ChatTemplate) -> Conversation | str:
    """The conversation, or one line that says why there is none."""
    try:
        plain, padded = rendered(template, variables, [_TALK, _PADDED], system, pictures)
    except ModelError as error:
        return str(error)
    if [plain.count(text) for text in _TALK] != [1, 1, 1]:
        return "it does not write each of them once as it is"
    rest = plain.partition(_TALK[0])[2]
    answered, _, rest = rest.partition(_TALK[1])
    found = Conversation(chat, answered, rest.partition(_TALK[2])[0])
    if [found.fill(_TALK, chat.after), found.fill(_PADDED, chat.after)] != [plain, padded]:
        return "it changes them, or writes other text around some"
    return found


def texts_of(turns: Sequence[Turn], question: str, template: str) -> list[str]:
    """The texts of user and model by turns; every earlier question stands in the prompt template, too."""
    asked = [text for turn in turns for text in (template.replace("{question}", turn.question), turn.answer)]
    return [*asked, question]
