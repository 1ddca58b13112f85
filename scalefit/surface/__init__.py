"""All runs at once: one shape of basin, a floor and a centre for every cell, laws through the centres."""
