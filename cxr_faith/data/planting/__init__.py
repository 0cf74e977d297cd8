"""Plants synthetic objects with exact masks in real films: evidence that is known, for any model."""
