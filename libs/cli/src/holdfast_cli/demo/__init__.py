"""``make demo``: a shop's orders from files to Gold tables, with the faults and decisions of a real week.

Role: shows the main job on real processes and checks every table against its own computation.
Ban: nothing of the pipeline domain is imported; what is expected is computed here, from the files alone.
"""
