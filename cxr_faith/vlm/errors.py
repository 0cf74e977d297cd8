"""What can be wrong with a model or with a question to it. Imports nothing heavy."""


class ModelError(ValueError):
    """The model, its folder or its processor cannot be used; the message says why."""


class TemplateError(ModelError):
    """The chat template cannot write what is asked of it: no fault of the process that renders it."""


class PromptError(ValueError):
    """The model cannot be asked this question, for example because it spells a control token."""
