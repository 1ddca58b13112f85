"""Fitting: a law and a table in, a `Fit` with honest errors out."""
