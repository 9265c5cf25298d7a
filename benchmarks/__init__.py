"""Speed and memory of lungshift, as ratios within one run. Run ``python -m benchmarks``; see ``benchmarks/README.md``."""
