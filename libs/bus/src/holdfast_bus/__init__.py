"""Subjects, streams, delivery and RPC over NATS."""
