"""How good it is: evaluation sets, suites, statistics and the report. Knows no Ray and no config file."""
