"""Commands that look at something and say what they find: `list`, `doctor`, `check`."""
