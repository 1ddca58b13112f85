"""Ways to read the optimum off every cell of runs, and what a rate beside it costs."""
