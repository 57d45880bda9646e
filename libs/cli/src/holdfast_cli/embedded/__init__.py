"""The whole system on one machine: NATS, Redis and every service as child processes.

Role: starts them in order, watches them, starts again what ends, stops them in order.
Ban: no messages of its own on the bus; each service is the same program that runs in a container.
"""
