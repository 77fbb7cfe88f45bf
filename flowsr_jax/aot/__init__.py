"""Compile a run's programs for a TPU without one: what they need and what they would cost."""
