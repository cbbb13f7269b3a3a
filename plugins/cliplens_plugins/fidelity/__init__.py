"""Fidelity: what the dictionary keeps of the activations it was trained on."""

from cliplens_plugins.fidelity.metric import FidelityMetric as FidelityMetric
