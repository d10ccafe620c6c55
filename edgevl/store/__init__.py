"""What is remembered between questions, keyed by content."""
