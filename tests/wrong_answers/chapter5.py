"""Plausible wrong answers to the exercises of chapter 5, and what must be said about each."""

from __future__ import annotations

from typing import Any

WRONG: dict[str, list[tuple[Any, str]]] = {}
