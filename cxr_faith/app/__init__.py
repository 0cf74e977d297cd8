"""Local pages: every sample of one run, in a browser."""
