"""Keeps a simulated dungeon as declared: rooms, corridors, creatures, traps and structures, and raids on them.

The world is kept in Redis, so that replicas agree and a killed one loses nothing; what changes it is decided in
:mod:`.building` and :mod:`.raiding`, which are pure. This package never reads the planner's keys: the world is the
outside that Holdfast observes and repairs, and raids never tell it more than "this node changed".
"""
