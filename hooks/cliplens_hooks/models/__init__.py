"""One file per source of models: what a name opens, and which model objects are recognised."""
