"""Perturbation: substrates, schedules, and the engine that runs perturbed pictures."""
