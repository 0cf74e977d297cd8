"""A processor's parts, read one by one.

Some processors do not load without torchvision, which their video part wants. A picture here comes at its final size,
so that tokenizer, chat template and a few settings are all that is needed.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from cxr_faith.vlm.checkpoint import load_tokenizer
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.folder import PROCESSOR_FILES, ModelFolder, read_json

_DEFAULTS = {"do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "processor_config.json")


@dataclass
class ProcessorParts:
    """What a processor holds.

    Attributes:
        tokenizer: the tokenizer.
        chat_template: the processor's own; None: the tokenizer's.
        image_processor: the settings of its image processor, as attributes.
    """

    tokenizer: Any
    chat_template: str | None
    image_processor: Any

    @classmethod
    def load(cls, folder: ModelFolder) -> "ProcessorParts":
        """Read them from a model folder.

        Raises:
            ModelError: a file is missing or damaged.
        """
        stated = [read_json(folder.files[name]) for name in PROCESSOR_FILES if name in folder.files]
        parts = [content.get("image_processor", content) for content in stated]
        settings = next((part for part in parts if isinstance(part, dict) and "image_mean" in part), None)
        if settings is None:
            raise ModelError(f"{folder.path} holds no image settings: preprocessor_config.json is missing or damaged")
        return cls(load_tokenizer(folder), _template(folder), SimpleNamespace(**_DEFAULTS | settings))


def _template(folder: ModelFolder) -> str | None:
    for name in _TEMPLATES:
        if name in folder.files:
            file = folder.files[name]
            text = file.read_text(encoding="utf-8") if name.endswith(".jinja") else read_json(file).get("chat_template")
            if isinstance(text, str):
                return text
    return None
