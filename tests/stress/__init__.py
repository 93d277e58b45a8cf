"""Long tests by chance, each a program: python -m tests.stress.NAME --count N --seed S.

A short run of each is part of the test suite (tests/test_stress_*.py).
"""
