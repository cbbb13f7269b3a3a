"""Parts of `naming.py` and `naming_drawings.py`: names of all namers, counted against a known truth, and tables."""
