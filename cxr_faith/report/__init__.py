"""From typed numbers to terminal, Markdown, page, figures and clinical page; nothing here runs a model."""
