"""Laws compared on cells they have not seen, nested tests, averages, and the simplest law that stands."""
