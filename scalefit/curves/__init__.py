"""Loss curves of many runs: smoothed, cut to final losses, and asked when they reach a target."""
