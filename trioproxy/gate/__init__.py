"""May this request come in, and what may it use: virtual keys, rules, limits, budgets. Gives a `Permit` or an error."""
