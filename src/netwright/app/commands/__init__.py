"""The commands of the command line, a file per group. Nothing heavy is imported before a command needs it."""
