"""Mutation testing of methods: `make mutants SLUG=...`; see docs/adding-a-method.md."""
