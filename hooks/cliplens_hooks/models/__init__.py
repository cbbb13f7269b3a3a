"""Model sources, one per file. They load models by name and recognise model objects."""
