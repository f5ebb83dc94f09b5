"""The service: a RESP server over a Cache."""
