"""The web: asking for URLs politely, safely, many at once, and always to an end."""
