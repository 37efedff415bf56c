"""Exercises of chapter 6: A modern training."""
