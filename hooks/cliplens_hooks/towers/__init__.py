"""One file per family of encoders: where its blocks are, and how inputs become a stream and an embedding."""
