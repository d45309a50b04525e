"""What a developer runs by hand or in CI."""
