"""Faithfulness metrics: pure functions of curves (functional) and the torchmetrics that average them (curves)."""
