"""A tiny vision-language model for `vision_language_namer.py`: its layout, its training questions, its training."""
