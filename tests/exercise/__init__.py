"""A family written as an exercise: what adding one takes. `tests/test_exercise.py` tries it."""
