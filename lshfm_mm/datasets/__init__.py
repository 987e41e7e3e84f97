"""Data sets, and a look at the files that they need."""
