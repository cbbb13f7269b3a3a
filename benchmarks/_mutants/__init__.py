"""The parts of `benchmarks/mutants.py`: single changes of the source, and the tests run on each."""
