"""Files on disk: written whole or not at all, never through a planted link, locked where locks exist."""
