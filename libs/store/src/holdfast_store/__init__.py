"""Everything that is kept: the key schema, the port to the store, the Redis adapter and its in-memory twin.

Role: commit changes of graphs, leases and manifests atomically, and read them back. Ban: no bus, no decisions
about nodes (those are the model's), and no key that is built outside :mod:`holdfast_store.keys`.
"""
