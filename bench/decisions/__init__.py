"""`make bench-policy`: the gate's decisions beside those of other policy engines, on the same policies."""
