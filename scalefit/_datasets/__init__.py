"""Sweeps and curves by name: the bundled ones, and public ones fetched from where their authors published them."""
