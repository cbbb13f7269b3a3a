"""Encoders that are independent of the model studied."""
