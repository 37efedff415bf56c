"""How long a download waits: short enough to be told soon that there is no network."""

CONNECT_SECONDS = 3.0
READ_SECONDS = 20.0
