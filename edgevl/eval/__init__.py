"""How often is a model right? Published data sets and your own questions, asked as a user asks."""
