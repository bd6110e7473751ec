"""What the page, the CLI and /v1 read. Each call is one short transaction and gives frozen records."""
