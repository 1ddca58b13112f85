"""`python -m scalefit.cli`, the same as `scalefit`."""

from __future__ import annotations

from scalefit.cli import main

if __name__ == "__main__":
    main()
