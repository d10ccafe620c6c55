"""The registry of models and the one that comes along, installed as data."""
