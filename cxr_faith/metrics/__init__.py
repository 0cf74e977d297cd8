"""Faithfulness metrics: pure functions (functional, baselines, localization, …) and torchmetrics (curves, board)."""
