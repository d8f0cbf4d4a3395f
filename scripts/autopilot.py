#!/usr/bin/env python
"""Reach a return within a budget: pilots, a law, and the run that the law calls cheapest."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sweep import resolve

from scaling.autopilot.loop import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], resolve))
