"""Tower adapters, one file per family of encoders."""
