"""Answers to the exercises: `WRONG` of each module has (answer, what is said), `RIGHT` others."""
