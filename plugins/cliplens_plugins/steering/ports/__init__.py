"""Where steering enters a model: one file per kind of target, each giving a `Port` for a site."""
