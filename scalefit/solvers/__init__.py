"""Solvers know arrays and functions, never tables or laws."""
