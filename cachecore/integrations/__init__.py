"""What connects caches to other people's systems: one foreign API a file."""
