"""Models and runs beside each other: intervals, tests, ranks."""
