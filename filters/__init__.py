"""Which samples stay: scorers make columns, filters decide from columns. Knows no config file and no Ray."""
