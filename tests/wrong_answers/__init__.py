"""Plausible wrong answers: `WRONG` of each module maps an exercise to (answer, what is said)."""
