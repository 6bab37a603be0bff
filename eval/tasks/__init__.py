"""Which published task a set is, the words that it is asked with, and means over tasks."""
