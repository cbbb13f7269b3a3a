"""Added modules, one folder each; none knows another."""
