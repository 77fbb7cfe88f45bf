"""Evaluation of models and of result files: protocols, tables, temperature curves."""

from flowsr_jax.evaluation.pairs import EvaluationError
from flowsr_jax.evaluation.protocols import PROTOCOLS, Protocol, Score, get_protocol
from flowsr_jax.evaluation.run import Result, evaluate_folder

__all__ = [
    "PROTOCOLS",
    "EvaluationError",
    "Protocol",
    "Result",
    "Score",
    "evaluate_folder",
    "get_protocol",
]
