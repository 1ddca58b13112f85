"""Write `runs.csv` and `truth.json` of this folder anew, byte for byte."""

from pathlib import Path

from scalefit.simulation import write_bundle

write_bundle(Path(__file__).parent, seed=20)
