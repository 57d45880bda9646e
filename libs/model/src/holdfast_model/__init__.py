"""Rules and contracts of Holdfast, as data and pure functions.

Role: everything that is *decided* lives here: graphs and their merges, the reconciler, ladders, the life of a
WorkItem, and the messages that services exchange.
Ban: no I/O, no asyncio, no clock, no randomness. ``now`` and ids are passed in; results are returned as data.
"""
