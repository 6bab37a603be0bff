"""From artifacts to the data that the report shows: one file per section of the page."""
