"""Turns faults into counts, ladders and graph mutations: each fault exactly once.

It decides what the desired graph shall hold, never what is done with it: no step, observation or WorkItem
starts here.
"""
