"""From a question to its prompt: text of a data set must become text, never an image, a turn or gigabytes."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cxr_faith.data.sample import Turn
from cxr_faith.vlm.base import Prompt
from cxr_faith.vlm.chat_template import ChatTemplate
from cxr_faith.vlm.config import PromptOptions
from cxr_faith.vlm.conversation import Conversation, texts_of
from cxr_faith.vlm.errors import ModelError, PromptError, TemplateError
from cxr_faith.vlm.letters import letter_ids

_CHARACTERS_PER_TOKEN = 100
"""More than the longest tokens have: a longer text is refused before it is tokenized."""

_PLAIN = "Is there a nodule?"
"""A question that every tokenizer can write."""

Encode = Callable[[str, int], tuple[tuple[int, ...], tuple[int, ...]]]
"""(a filled chat template, number of pictures) → (token ids, position of each picture's first image token)."""


def check_asked(question: str) -> None:
    """Refuse a question that shows nothing, such as white space or control characters alone.

    Raises:
        PromptError: the question is empty.
    """
    if all(unicodedata.category(character)[0] in "CZ" for character in question):
        raise PromptError("the question is empty")


@dataclass
class Prompter:
    """Makes prompts with a model's chat template.

    Attributes:
        processor: the model's processor.
        encode: tokenizes a filled chat template; the family's own.
        n_cells: number of image tokens of a picture.
        options: how a question is put to the model.
        positions: longest prompt that the model takes, in tokens.
        pictures: number of pictures that come before a question.
    """

    processor: Any
    encode: Encode
    n_cells: int
    options: PromptOptions
    positions: int
    pictures: int = 1

    @cached_property
    def control(self) -> dict[int, str]:
        """Id → text of the tokens that carry no text, such as turn and image markers."""
        added = self.processor.tokenizer.added_tokens_decoder
        return {index: token.content for index, token in added.items() if token.special}

    @cached_property
    def chat(self) -> ChatTemplate:
        """The texts around every question; the second ends where the model goes on."""
        options = self.options
        chat, begun = ChatTemplate.of(self.processor, options.system, self.pictures), options.answer_prefix
        if options.reasoning.on:  # the answer follows the thought, which the chat template may have opened
            begun = "" if chat.after.rstrip().endswith(options.reasoning.open.rstrip()) else options.reasoning.open
        return replace(chat, after=chat.after + begun)

    @cached_property
    def overhead(self) -> int:
        """Number of tokens of a prompt without a question and without the prompt template."""
        return len(self.encode(self.chat.fill(""), self.pictures)[0])

    @cached_property
    def conversation(self) -> Conversation:
        """The texts between the turns of a conversation."""
        return Conversation.of(self.processor, self.options.system, self.pictures)

    @cached_property
    def allowed(self) -> list[int]:
        """The control tokens of a prompt whose question spells none."""
        return self._allowed(())

    def prompt(self, question: str, options: int = 0, turns: tuple[Turn, ...] = ()) -> Prompt:
        """Tokenize a question; see `VLM.prompt`.

        Raises:
            PromptError: the question is too long, is not valid Unicode, or spells a control token; or the tokenizer
                splits the letter of an option.
            ModelError: the chat template or the prompt template cannot be used.
        """
        # Not str.format: a template or a question may hold other braces.
        text = self.options.template_for(options).replace("{question}", question)
        self._check_text("".join((question, *(part for turn in turns for part in vars(turn).values()))), text)
        allowed = self.allowed  # before what follows: a template that cannot be used is no fault of the question
        allowed = self._allowed(turns) if turns else allowed
        try:
            ids, starts = self.encode(self._filled(text, turns), self.pictures)
        except ModelError as error:  # not without the question
            raise PromptError(f"with this question, {error}") from error
        if len(ids) - self.overhead > self.options.max_question_tokens:
            raise PromptError(self._too_long(f"{len(ids) - self.overhead:,} tokens"))
        if len(ids) > self.positions:
            raise PromptError(_too_many(self, len(ids)))
        if self._control(ids) != allowed:
            raise PromptError("the question and the text around it spell a control token")
        end, thought = starts[-1] + self.n_cells, "" if self.options.reasoning.on else None
        letters = letter_ids(self.processor.tokenizer, options)
        return Prompt(question, ids[:end], ids[end:], starts[0], thought, letters, starts[1:], turns)

    def text_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of the whole question when it is asked without a picture.

        Raises:
            PromptError: the chat template takes no such question, or no earlier turns then.
        """
        if self.alone is None:
            raise PromptError("the chat template takes no question without a picture")
        text = self.options.template_for(len(prompt.letters)).replace("{question}", prompt.question)
        return self.alone.encode(self.alone._filled(text, prompt.turns), 0)[0]

    @cached_property
    def alone(self) -> "Prompter | None":
        """Makes prompts without a picture; None: the model takes none.

        Raises:
            ModelError: the template could not be rendered, so it is not known.
        """
        prompter = replace(self, pictures=0)
        try:
            chat = prompter.chat
        except TemplateError:
            return None
        try:
            prompter.encode(chat.fill(""), 0)
        except ModelError:  # the family's prompts need a picture
            return None
        return prompter

    def _filled(self, text: str, turns: tuple[Turn, ...]) -> str:
        """The text of a prompt."""
        if not turns:
            return self.chat.fill(text)
        return self.conversation.fill(texts_of(turns, text, self.options.template), self.chat.after)

    def _allowed(self, turns: tuple[Turn, ...]) -> list[int]:
        """The control tokens of a prompt of this many turns whose texts spell none."""
        empty = self.options.template.replace("{question}", "")
        return self._control(self.encode(self._filled(empty, (Turn("", ""),) * len(turns)), self.pictures)[0])

    def after_thought(self, prompt: Prompt, thought: tuple[int, ...], closed: bool) -> Prompt:
        """The prompt with the model's thought, held fixed, up to the start of the answer.

        Args:
            prompt: the question, up to where the thought opens.
            thought: the tokens of the thought.
            closed: whether the closing mark is among them; else it is added.
        """
        tokenizer, reasoning = self.processor.tokenizer, self.options.reasoning
        following = ("" if closed else reasoning.close) + self.options.answer_prefix
        ids: list[int] = tokenizer(following, add_special_tokens=False)["input_ids"] if following else []
        text = tokenizer.decode(thought).partition(reasoning.close)[0]
        return replace(prompt, suffix_ids=(*prompt.suffix_ids, *thought, *ids), thought=text.strip())

    def _check_text(self, question: str, text: str) -> None:
        """Check what can be checked without the tokenizer; `question` holds the earlier turns, too."""
        if max(len(text), len(question)) > _CHARACTERS_PER_TOKEN * self.options.max_question_tokens:
            raise PromptError(self._too_long(f"{max(len(text), len(question)):,} characters"))
        try:
            (question + text).encode()
        except UnicodeEncodeError as error:
            raise PromptError("the question is not valid Unicode") from error
        spelled = next((token for token in self.control.values() if token in question), None)
        if spelled is not None:
            raise PromptError(f"the question spells the control token {spelled}")

    def _too_long(self, length: str) -> str:
        limit = f"{self.options.max_question_tokens:,} tokens"
        return f"the question has {length}, more than vlm.max_question_tokens allows ({limit})"

    def _control(self, ids: tuple[int, ...]) -> list[int]:
        """The control tokens of a prompt. A token that stands for unknown text is none."""
        unknown = self.processor.tokenizer.unk_token_id
        return [index for index in ids if index in self.control and index != unknown]


def _too_many(prompter: Prompter, length: int) -> str:
    """Says what a prompt of too many tokens is made of: a question shows its pictures at a fixed size."""
    pictures = f"{prompter.pictures} picture{'s' * (prompter.pictures > 1)}"
    held = f"{length:,} tokens, {prompter.n_cells * prompter.pictures:,} of them of {pictures}"
    return f"the prompt has {held}; the model takes {prompter.positions:,}"


def check_prompts(prompter: Prompter, embeddings: int) -> None:
    """Refuse a chat template, a prompt template or a tokenizer that no question can be asked with.

    Args:
        prompter: makes the prompts.
        embeddings: number of tokens that the model knows.

    Raises:
        ModelError: the message says what is wrong with which of them.
    """
    tokenizer = prompter.processor.tokenizer
    try:
        prompter.prompt("")
        prompt = prompter.prompt(_PLAIN)
        written = tokenizer.decode(prompt.suffix_ids)
        known = tokenizer.get_vocab().values()
    except PromptError as error:
        raise ModelError(f"vlm.prompt_template cannot be used: {error}") from error
    if _PLAIN not in written:
        raise ModelError(f"the tokenizer cannot write {_PLAIN!r}: is it another model's?")
    text = [index for index in known if index not in prompter.control]
    largest = max(*text, *prompt.suffix_ids, *prompt.prefix_ids[: prompt.image_start])
    if largest >= embeddings:
        raise ModelError(f"the tokenizer has token {largest}, but the model has only {embeddings} embeddings")
