"""Parts of benchmarks/emoji.py."""
