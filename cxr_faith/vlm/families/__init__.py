"""One file a family of models, which alone knows its token layout."""
