"""Exercises of chapter 4: Skip connections."""
