"""Recipe of the bundled model: its definition, its training data, its trainer and its evaluation."""
