"""Compiling ahead of time for TPUs that are not there: what a run would need and cost."""
