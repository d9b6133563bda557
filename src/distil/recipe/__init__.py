"""Recipe: the stages' configurations put together; load, override, resolve, explain errors."""
