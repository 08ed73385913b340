"""Measurements of the gate beside Workers that do less: `make bench`. How to read them: bench/README.md."""
