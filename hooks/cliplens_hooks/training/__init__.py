"""Training of the embedded models, and the figures they were chosen by."""
