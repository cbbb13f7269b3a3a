"""The parts of `benchmarks/steering.py`: data, ways to move an embedding, readers, scoring and tables."""
