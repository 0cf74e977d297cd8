"""One answer for a clinical reader: JSON, a page and a sheet. Research output, not for diagnosis."""
