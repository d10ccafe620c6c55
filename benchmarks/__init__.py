"""Measurements of edgevl; each module is a script."""
