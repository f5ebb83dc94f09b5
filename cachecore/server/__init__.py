"""The service: a RESP server and proxy around one Cache; `service.run(settings)` is all of it."""
