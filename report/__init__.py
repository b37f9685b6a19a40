"""The token-savings report: empty until the log that it reads has traffic."""
