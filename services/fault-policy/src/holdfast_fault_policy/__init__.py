"""Turns faults into counts, ladders and graph mutations."""
