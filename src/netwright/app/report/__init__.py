"""What came of it, for people and programs: result.json, the report, tables, notebooks."""
