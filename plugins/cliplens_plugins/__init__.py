"""Plugins of cliplens, one folder each. No plugin imports another."""
