"""Running a plan: what is known already, which step comes next and where, and what is kept of it."""
