"""A decoder computed without a graph: C for the processor's vector units, and where a model's weights lie for it."""
