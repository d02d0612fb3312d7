"""Version of this code, also of a checkout that is not installed."""

VERSION = "0.3.0"
