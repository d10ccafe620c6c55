"""How long a question will take on this machine, and how many tiles an image gets for a budget of seconds."""
