"""Parts of `benchmarks/steering.py`: data, methods that edit an embedding, readers, scoring and tables."""
