"""Lets the tests here import the networks that they share (awkward.py)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
