"""A miniature of arXiv 2402.15000: students really trained here, with a teacher and a solver that are SIMULATED.

    python -m benchmarks.replication

README.md says what is simulated and how, what is therefore so by construction, and what came out.
"""
