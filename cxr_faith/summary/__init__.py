"""From records to typed numbers; nothing here draws, prints or runs a model."""
