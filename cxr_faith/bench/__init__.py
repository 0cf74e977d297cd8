"""The speed benchmark: the engine beside the usual recipe, other libraries and the floor."""
