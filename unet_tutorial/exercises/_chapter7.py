"""Exercises of chapter 7: Using it."""
