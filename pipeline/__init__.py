"""When, where and whether it runs: the config file, the plan, artifacts, engines and the command line."""
