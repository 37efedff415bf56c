"""Exercises of chapter 5: The paper's training."""
