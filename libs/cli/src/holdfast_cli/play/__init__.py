"""``holdfast play dungeon``: a person raids, Holdfast rebuilds.

Role: shows a dungeon as the planner sees it, asks the dungeon's service for raids, decides WorkItems in place.
Ban: nothing of the dungeon's package is imported and nothing is drawn that was not told on the bus.
"""
