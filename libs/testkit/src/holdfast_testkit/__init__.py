"""Real servers, builders and fault injection for the tests."""
