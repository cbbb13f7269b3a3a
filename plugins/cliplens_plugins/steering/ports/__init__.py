"""Attach steering to models: one file per kind of target, each of which returns a `Port` for a site."""
