"""Adapters: towers of each model family, sources of models, judges, and the training of the embedded models."""
