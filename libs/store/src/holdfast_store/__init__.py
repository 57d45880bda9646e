"""Key schema, ports, the Redis adapter and its in-memory twin."""
