"""Which law: comparison on cells left out, nested tests, averages, and the choice of the simplest law."""
